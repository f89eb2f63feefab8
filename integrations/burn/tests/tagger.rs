//! What the tagger of the examples learned.

#[allow(dead_code, reason = "a program's own main and tables")]
#[path = "../examples/tagger.rs"]
mod tagger;

#[test]
fn context_and_positions_tell_a_verb_from_a_noun() {
    let learned = tagger::learn().expect("a device");
    let right = ["pronoun", "verb", "determiner", "noun"];
    let [alone, near, bag, waves, places] = &learned.taggers[..] else {
        panic!("{} taggers", learned.taggers.len());
    };
    // The same word, the same tag.
    assert!(alone.clauses < 65.0 && alone.lists < 70.0 && alone.tags[1] == alone.tags[3]);
    assert!(
        near.clauses > 90.0 && near.lists < 75.0 && near.tags == right,
        "a window is too small"
    );
    assert!(bag.lists > 90.0 && bag.clauses < 65.0 && bag.tags[1] == bag.tags[3], "no order");
    for tagger in [waves, places] {
        assert!(tagger.clauses > 90.0 && tagger.lists > 90.0, "{}", tagger.name);
        assert_eq!(tagger.tags, right, "{}", tagger.name);
    }
    let [pooled, states] = &learned.judges[..] else { panic!("{} judges", learned.judges.len()) };
    assert!((pooled.plain + pooled.turned) / 2.0 < 85.0, "words alone do not turn a verdict");
    assert!(states.plain > 90.0 && states.turned > 90.0, "{} and {}", states.plain, states.turned);
    for look in &learned.looks {
        assert!((look.weights.iter().sum::<f32>() - 1.0).abs() < 1e-4);
    }
}
