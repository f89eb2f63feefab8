//! The case grid on the GPU, on every path: guarded, poisoned, run twice, checked against the reference.

mod common;

use heedful::Path;
use heedful::plan::MAX_ROWS;
use heedful::verify::cases::{Case, Grid, grid};
use heedful::verify::execute::Placement;
use heedful::verify::run::{Outcome, run};
use heedful::verify::truth::Truth;

#[test]
fn quick_grid_matches_the_reference_on_every_path() {
    let Some(engine) = common::gpu::engine("quick_grid") else { return };
    let (mut passed, mut unsupported, mut failures) = (0, 0, Vec::new());
    for (i, case) in grid(Grid::Quick).iter().enumerate() {
        let (problem, data) = case.generate().expect("a case of the catalogue is valid");
        let truth = Truth::measure(&problem, &data.inputs()).expect("the reference serves all");
        let placement = if i % 3 == 0 { Placement::Odd } else { Placement::Aligned };
        let few = problem.attention().shape.seq_q <= MAX_ROWS;
        let paths = [Path::Split, Path::Fused, Path::Staged].into_iter();
        for path in paths.filter(|path| few || *path != Path::Split) {
            let outcome = run(&engine, &case.attention, path, &data.inputs(), placement, |x| {
                truth.check(&problem, &x.outputs)
            });
            match outcome.unwrap_or_else(|e| panic!("{}: {e}", case.name)) {
                Outcome::Unsupported(_) => unsupported += 1,
                Outcome::Ran(ran) => match ran.failure() {
                    None => passed += 1,
                    Some(why) => failures.push(describe(case, path, &why)),
                },
            }
        }
    }
    println!("{passed} passed, {unsupported} unsupported, {} failed", failures.len());
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    assert!(passed > 150, "only {passed} cases ran");
}

fn describe(case: &Case, path: Path, why: &str) -> String {
    format!("{path} seed {} {}: {why}", case.seed, case.name)
}
