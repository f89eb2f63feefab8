//! Recorded results of other systems, on the GPU, on every path that can serve them.

#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod common;

use heedful::Path;
use heedful::verify::golden::{GoldenSuite, Precision, Support};
use heedful::verify::run::Outcome;

#[test]
fn recorded_cases_pass_on_every_path() {
    let Some(engine) = common::gpu::engine("recorded_cases") else { return };
    let (mut passed, mut unsupported, mut failures) = (0, 0, Vec::new());
    for suite in ["onnx", "jax", "real", "varlen", "forms"] {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/").to_owned() + suite;
        for case in GoldenSuite::open(folder.as_ref()).unwrap().cases {
            let loaded = match case.load(Precision::Stored).unwrap() {
                Support::Supported(loaded) => loaded,
                Support::Unsupported(_) => {
                    unsupported += 1;
                    continue;
                }
            };
            for path in [Path::Split, Path::Fused, Path::Staged] {
                match loaded.run(&engine, path).unwrap() {
                    Outcome::Unsupported(_) => unsupported += 1,
                    Outcome::Ran(ran) => match ran.failure() {
                        None => passed += 1,
                        Some(why) => failures.push(format!("{} {path}: {why}", case.name)),
                    },
                }
            }
        }
    }
    let of = passed + unsupported;
    common::skip::unsupported("recorded_cases", format!("{unsupported} of {of} runs"));
    println!("{passed} passed, {} failed", failures.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    // 65 + 127 + 3 + 12 + 56 cases on two paths and 6 rotations, which are one dispatch; of the forms, 6
    // normalisers are staged only; 12 cases have their keys in pages, which the staged path does not read. Split
    // serves 258 cases; the other 23 return weights only, or are no softmax.
    assert_eq!((passed, unsupported), (796, 47));
}
