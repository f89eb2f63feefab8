//! `heedful run --grad-out`: gradients, checked, in the shapes of their tensors.

mod common;

use common::{Order, QKV, adapter, arrays, npy, numbers};
use heedful::verify::npy as reader;

#[test]
fn run_gradients_match_the_reference_and_have_their_tensors_shapes() {
    if !adapter("run_gradients_match_the_reference") {
        return;
    }
    let place = arrays();
    place.write("d.npy", npy("<f4", Order::C, &[2, 4, 9, 6], &numbers(432, 8)));
    place.write("d_lse.npy", npy("<f4", Order::C, &[2, 4, 9], &numbers(72, 9)));
    let all = "--grad-q dq.npy --grad-k dk.npy --grad-v dv.npy";
    for (options, others) in [
        ("", ""),
        ("--causal bottom-right --softcap 3 --dtype f16", ""),
        ("--bias bias.npy --grad-lse d_lse.npy", "--grad bias=db.npy"),
        ("--alibi slopes.npy --sinks sinks.npy", "--grad alibi_slopes=da.npy --grad sinks=ds.npy"),
    ] {
        let command = format!("{QKV} --grad-out d.npy --check {options} {all} {others}");
        let done = place.heedful(&command).succeeded();
        let said = done.stdout();
        assert!(said.contains("gradient of q        ok"), "{options}: {said}");
        assert!(!said.contains("WRONG"), "{options}: {said}");
        let shape = |file: &str| reader::read(&place.path(file)).expect(file).shape;
        assert_eq!(shape("dq.npy"), [2, 4, 9, 8], "{options}");
        assert_eq!(shape("dk.npy"), [2, 2, 13, 8], "{options}");
        assert_eq!(shape("dv.npy"), [2, 2, 13, 6], "{options}");
        if others.contains("db.npy") {
            assert_eq!(shape("db.npy"), [1, 4, 9, 13]);
        }
        if others.contains("ds.npy") {
            assert_eq!((shape("da.npy"), shape("ds.npy")), (vec![4], vec![4]));
        }
    }
    let reference = format!("{QKV} --grad-out d.npy --path reference --normalizer sparsemax {all}");
    place.heedful(&reference).succeeded();
}

#[test]
fn run_bad_gradients_are_one_line() {
    let place = arrays();
    place.write("d.npy", npy("<f4", Order::C, &[2, 4, 9, 6], &numbers(432, 8)));
    let refused = |options: &str, words: &[&str]| {
        let command = format!("{QKV} --path reference {options}");
        place.heedful(&command).refused(2, words);
    };
    refused("--grad-out d.npy", &["--grad-out", "no gradient to write"]);
    refused("--grad-q dq.npy", &["--grad-out"]);
    refused("--grad-out q.npy --grad-q dq.npy", &["--grad-out", "432 elements"]);
    refused("--grad-out d.npy --grad nothing=x.npy", &["nothing"]);
    refused("--grad-out d.npy --grad bias=x.npy", &["gradient of bias", "a call without it"]);
    refused("--grad-out d.npy --grad-q dq.npy --normalizer hard", &["normalizer", "hard"]);
    assert!(!place.path("dq.npy").exists());
}
