//! What the encoder–decoder of the examples learned.

#[allow(dead_code, reason = "a program's own main")]
#[path = "../examples/seq2seq.rs"]
mod seq2seq;

use seq2seq::{Look, reverse, translate};

#[test]
fn an_encoder_decoder_needs_attention_the_more_the_longer_its_input() {
    let device = seq2seq::shared::device().expect("a device");
    let without = reverse(Look::None, 100, &device).expect("a model").shares;
    let learned = reverse(Look::Dot, 100, &device).expect("a model");
    let with = learned.shares;
    assert!(with[0] > 0.9 && without[0] > 0.7, "two digits are learned: {with:?} {without:?}");
    assert!(with[1] > 0.7 && with[2] > 0.5, "four and six digits with attention: {with:?}");
    assert!(with[2] > without[2] + 0.4, "and without: {with:?} {without:?}");
    // The first digit is said by looking at the end of the string more than at its beginning.
    let first = &learned.weights[..6];
    assert!(first[4] + first[5] > first[0] + first[1], "{first:?}");

    let translated = translate(Look::Additive, 100, &device).expect("a model");
    for phrase in translated {
        assert_eq!(phrase.said, phrase.wanted, "{}", phrase.phrase);
    }
}
