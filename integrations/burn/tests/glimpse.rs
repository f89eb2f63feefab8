//! Where the glimpse model of the examples learned to look.

#[allow(dead_code, reason = "a program's own main and pictures")]
#[path = "../examples/glimpse.rs"]
mod glimpse;

#[test]
fn looking_where_it_learned_to_beats_looking_anywhere() {
    let learned = glimpse::learn().expect("a device");
    let [first, last] = learned.losses;
    assert!((1.2..1.6).contains(&first) && last < 0.7, "cross-entropy {first} to {last}");
    // Of four digits; three glimpses of 6 x 6 pixels seldom meet one of 3 x 5 among 16 x 16 by chance.
    let (policy, random) = (learned.learned, learned.random);
    assert!(policy > 0.75 && policy > random + 0.12, "right: {policy}, by chance {random}");
}
