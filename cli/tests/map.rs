//! `heedful map`: weights become a PNG, and what cannot be drawn is refused by name.

mod common;

use common::{Order, Place, npy, numbers};

fn place() -> Place {
    let place = Place::new();
    let weights: Vec<f64> = numbers(2 * 3 * 4 * 5, 1).into_iter().map(f64::abs).collect();
    place.write("weights.npy", npy("<f4", Order::C, &[2, 3, 4, 5], &weights));
    place.write("square.npy", npy("<f4", Order::C, &[4, 4], &weights[..16]));
    place.write("flags.npy", npy("|b1", Order::C, &[4, 4], &weights[..16]));
    place.write("line.npy", npy("<f4", Order::C, &[16], &weights[..16]));
    place
}

/// Width and height of a PNG.
fn size(place: &Place, name: &str) -> [u32; 2] {
    let bytes = std::fs::read(place.path(name)).expect("a picture");
    assert_eq!(&bytes[..8], b"\x89PNG\r\n\x1a\n");
    let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    [word(16), word(20)]
}

#[test]
fn one_head_or_a_grid_of_heads_is_drawn() {
    let place = place();
    place.heedful("map --weights weights.npy --out all.png").succeeded();
    place.heedful("map --weights weights.npy --batch 1 --head 2 --out one.png").succeeded();
    let (all, one) = (size(&place, "all.png"), size(&place, "one.png"));
    assert!(all[0] > one[0] && all[1] > one[1], "{all:?} {one:?}");
    place.heedful("map --weights square.npy --rows I,saw,a,saw --out words.png").succeeded();
    assert!(size(&place, "words.png")[0] > 4 * 22);
    place
        .heedful("map --weights square.npy --rows I,saw,a,saw --length 4 --out same.png")
        .succeeded();
    place.heedful("map --weights square.npy --rows I,saw --length 2 --out first.png").succeeded();
    assert_eq!(size(&place, "same.png"), size(&place, "words.png"));
    // Two rows and two columns less, of 22 pixels each.
    assert_eq!(size(&place, "first.png").map(|n| n + 2 * 22), size(&place, "words.png"));
    // More keys than rows: each as many as there are.
    place.heedful("map --weights weights.npy --head 0 --length 5 --out five.png").succeeded();
    place.heedful("map --weights weights.npy --head 0 --out whole.png").succeeded();
    assert_eq!(size(&place, "five.png"), size(&place, "whole.png"));
}

#[test]
fn what_cannot_be_drawn_is_refused_and_nothing_is_written() {
    let place = place();
    let before = place.files();
    for (options, words) in [
        ("--weights line.npy --out x.png", ["--weights", "[batch, heads, rows, keys]"]),
        ("--weights flags.npy --out x.png", ["--weights", "booleans"]),
        ("--weights weights.npy --batch 2 --out x.png", ["--batch", "below 2"]),
        ("--weights weights.npy --head 3 --out x.png", ["--head", "below 3"]),
        ("--weights square.npy --rows a,b --out x.png", ["--rows", "4"]),
        ("--weights square.npy --length 5 --out x.png", ["--length", "1..=4"]),
        ("--weights square.npy --length 0 --out x.png", ["--length", "1..=4"]),
        ("--weights square.npy --out none/x.png", ["none/x.png", "folder"]),
        ("--weights square.npy --out x.jpg", ["x.jpg", "PNG"]),
    ] {
        place.heedful(&format!("map {options}")).refused(2, &words);
    }
    assert_eq!(place.files(), before);
}
