//! Recorded results of other systems, on the GPU, on every path that can serve them.

#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod common;

use heedful::verify::execute::{Execution, Placement};
use heedful::verify::golden::{GoldenSuite, Precision, Role, Support};
use heedful::verify::run::{Outcome, run};
use heedful::{Attention, Operand, Path};

#[test]
fn recorded_cases_pass_on_every_path() {
    let Some(engine) = common::gpu::engine("recorded_cases") else { return };
    let (mut passed, mut unsupported, mut failures) = (0, 0, Vec::new());
    for suite in ["onnx", "jax", "real", "varlen"] {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/").to_owned() + suite;
        for case in GoldenSuite::open(folder.as_ref()).unwrap().cases {
            let loaded = match case.load(Precision::Stored).unwrap() {
                Support::Supported(loaded) => loaded,
                Support::Unsupported(_) => {
                    unsupported += 1;
                    continue;
                }
            };
            for path in [Path::Fused, Path::Staged] {
                // The fused path returns no scores; its other outputs are compared.
                let mut attention = loaded.attention.clone();
                if path == Path::Fused {
                    attention = Attention { weights: None, ..attention };
                }
                let compare = |x: &Execution| {
                    let all = loaded.check(&x.outputs).into_iter();
                    all.filter(|(role, _)| *role != Role::Weights || attention.weights.is_some())
                        .map(|(_, comparison)| (Operand::O, comparison))
                        .collect()
                };
                let inputs = loaded.data.inputs();
                match run(&engine, &attention, path, &inputs, Placement::Aligned, compare).unwrap()
                {
                    Outcome::Unsupported(why) => {
                        failures.push(format!("{} {path}: {why}", case.name));
                    }
                    Outcome::Ran(ran) => match ran.failure() {
                        None => passed += 1,
                        Some(why) => failures.push(format!("{} {path}: {why}", case.name)),
                    },
                }
            }
        }
    }
    println!("{passed} passed, {} failed, {unsupported} unsupported", failures.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    // 65 + 127 + 2 + 12 cases on two paths; the six of another kind are unsupported.
    assert_eq!((passed, unsupported), (412, 6));
}
