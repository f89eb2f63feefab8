//! Recorded results of other systems, on the GPU, on every path that can serve them.

#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod common;

use std::path::PathBuf;

use heedful::verify::golden::{GoldenCase, GoldenSuite, Precision, Support};
use heedful::verify::run::Outcome;
use heedful::{Engine, Path};

/// What came of the runs.
#[derive(Default)]
struct Counts {
    passed: u32,
    unsupported: u32,
    failures: Vec<String>,
}

impl Counts {
    /// A case on every path.
    fn run(&mut self, engine: &Engine, case: &GoldenCase) {
        let loaded = match case.load(Precision::Stored).unwrap() {
            Support::Supported(loaded) => loaded,
            Support::Unsupported(_) => return self.unsupported += 1,
        };
        for path in [Path::Split, Path::Fused, Path::Staged] {
            match loaded.run(engine, path).unwrap() {
                Outcome::Unsupported(_) => self.unsupported += 1,
                Outcome::Ran(ran) => match ran.failure() {
                    None => self.passed += 1,
                    Some(why) => self.failures.push(format!("{} {path}: {why}", case.name)),
                },
            }
        }
    }
}

#[test]
fn recorded_cases_pass_on_every_path() {
    let Some(engine) = common::gpu::engine("recorded_cases") else { return };
    let folder = |suite| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(suite);
    let suites = ["onnx", "jax", "real", "varlen", "forms"];
    let suites = suites.map(|suite| GoldenSuite::open(&folder(suite)).unwrap());
    let cases: Vec<&GoldenCase> = suites.iter().flat_map(|suite| &suite.cases).collect();
    // Two cores compile: on software drivers that is most of the time.
    let half = |first: usize| {
        let mut counts = Counts::default();
        cases.iter().skip(first).step_by(2).for_each(|case| counts.run(&engine, case));
        counts
    };
    let [first, second] = std::thread::scope(|scope| {
        let halves = [0, 1].map(|first| scope.spawn(move || half(first)));
        halves.map(|half| half.join().unwrap())
    });
    let (passed, unsupported) =
        (first.passed + second.passed, first.unsupported + second.unsupported);
    let failures = [first.failures, second.failures].concat();
    let of = passed + unsupported;
    common::skip::unsupported("recorded_cases", format!("{unsupported} of {of} runs"));
    println!("{passed} passed, {} failed", failures.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    // 65 + 127 + 3 + 12 + 56 cases on two paths and 6 rotations, which are one dispatch; of the forms, 6
    // normalisers are staged only. Split serves 258 cases; the other 23 return weights only, or are no softmax.
    assert_eq!((passed, unsupported), (808, 35));
}
