//! What the word vectors of the examples learned.

#[allow(dead_code, reason = "a program's own main and tables")]
#[path = "../examples/word2vec.rs"]
mod word2vec;

use word2vec::Outcome;

#[test]
fn words_of_like_context_come_together_and_nearer_ones_weigh_more() {
    let learned = word2vec::learn().expect("a device");
    assert!(learned.one_hot < 1e-6, "a row is the product with a one-hot vector");
    for (name, Outcome { before, after, losses }) in
        [("skip-gram", &learned.skip_gram), ("CBOW", &learned.cbow)]
    {
        assert!(before.own_class < 0.35 && after.own_class > 0.9, "{name}: {}", after.own_class);
        assert!(!before.films && after.films, "{name}: Troll 2 and Gymkata");
        assert!(losses.last() < losses.first(), "{name}: {losses:?}");
    }
    // CBOW attends to its context: at first a mean.
    let [before, after] = [&learned.weights_before, &learned.weights];
    assert!(before.iter().all(|weight| (weight - 1.0 / 6.0).abs() < 1e-5), "a mean: {before:?}");
    assert!((after.iter().sum::<f32>() - 1.0).abs() < 1e-4, "{after:?}");
    let pair = |far: usize| after[3 - far] + after[2 + far];
    assert!(pair(1) > pair(2) && pair(2) > pair(3), "{after:?}");
}
