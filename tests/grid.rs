//! The case grid on the GPU, on every path: guarded, poisoned, run twice, checked against the reference.

mod common;

use heedful::Path;
use heedful::plan::MAX_ROWS;
use heedful::verify::alone::{differs_alone, last_alone};
use heedful::verify::cases::{Case, Grid, grid};
use heedful::verify::execute::Placement;
use heedful::verify::run::{Outcome, run};
use heedful::verify::truth::Truth;

// Two halves, so that two cores compile.
#[test]
fn the_first_half_of_the_quick_grid_matches_the_reference_on_every_path() {
    matches_the_reference("first half of the quick grid", |i, n| i < n / 2);
}

#[test]
fn the_second_half_of_the_quick_grid_matches_the_reference_on_every_path() {
    matches_the_reference("second half of the quick grid", |i, n| i >= n / 2);
}

fn matches_the_reference(test: &str, wanted: fn(usize, usize) -> bool) {
    let Some(engine) = common::gpu::engine(test) else { return };
    let (mut passed, mut unsupported, mut failures) = (0, Vec::new(), Vec::new());
    let cases = grid(Grid::Quick).expect("distinct names");
    for (i, case) in cases.iter().enumerate().filter(|(i, _)| wanted(*i, cases.len())) {
        let (problem, data) = case.generate().expect("a case of the catalogue is valid");
        let truth = Truth::measure(&problem, &data.inputs()).expect("the reference serves all");
        let placement = if i % 3 == 0 { Placement::Odd } else { Placement::Aligned };
        let few = problem.attention().shape.seq_q <= MAX_ROWS;
        let paths = [Path::Split, Path::Fused, Path::Staged].into_iter();
        for path in paths.filter(|path| few || *path != Path::Split) {
            let mut o = Vec::new();
            let outcome = run(&engine, &case.attention, path, &data.inputs(), placement, |x| {
                o.clone_from(&x.outputs.o);
                truth.check(&problem, &x.outputs)
            });
            let alone = || {
                differs_alone(&engine, &case.attention, &data, path, placement, &o)
                    .unwrap_or_else(|e| panic!("{}: {e}", case.name))
            };
            match outcome.unwrap_or_else(|e| panic!("{}: {e}", case.name)) {
                Outcome::Unsupported(why) => unsupported.push(why),
                Outcome::Ran(ran) => match ran.failure().or_else(alone) {
                    None => passed += 1,
                    Some(why) => failures.push(describe(case, path, &why)),
                },
            }
        }
    }
    if let Some(why) = unsupported.first() {
        let of = unsupported.len() + passed;
        let what = format!("{} of {of} runs, the first: {why}", unsupported.len());
        common::skip::unsupported(test, what);
    }
    println!("{passed} passed, {} failed", failures.len());
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    assert!(passed > 150, "only {passed} cases ran");
}

fn describe(case: &Case, path: Path, why: &str) -> String {
    format!("{path} seed {} {}: {why}", case.seed, case.name)
}

#[test]
fn a_sequence_that_depends_on_its_batch_is_named() {
    let Some(engine) = common::gpu::engine("a_sequence_that_depends_on_its_batch") else { return };
    let mut compared = 0;
    for case in grid(Grid::Quick).expect("distinct names") {
        let (problem, data) = case.generate().expect("a valid case");
        let s = case.attention.shape;
        let Some((call, own)) = last_alone(&case.attention, &data) else { continue };
        compared += 1;
        // The reference agrees that it is the same sequence.
        let whole = problem.reference(&data.inputs()).expect("the reference serves all").o;
        let alone = call.validate().expect("valid").reference(&own.inputs()).expect("served").o;
        let bits = |o: &[f64]| o.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&whole[whole.len() - alone.len()..]), bits(&alone), "{}", case.name);
        if compared == 1 {
            let placement = Placement::Aligned;
            let mut o = Vec::new();
            run(&engine, &case.attention, Path::Fused, &data.inputs(), placement, |x| {
                o.clone_from(&x.outputs.o);
                Vec::new()
            })
            .expect("runs");
            let differs = |o: &[f64]| {
                differs_alone(&engine, &case.attention, &data, Path::Fused, placement, o)
                    .expect("runs")
            };
            assert_eq!(differs(&o), None);
            // One bit of the last row's first channel.
            let at = o.len() - s.dim_v as usize;
            o[at] = f64::from(f32::from_bits((o[at] as f32).to_bits() ^ 1));
            let why = differs(&o).expect("it is seen");
            assert!(
                why.contains(&format!("head {} row {} channel 0", s.heads_q - 1, s.seq_q - 1)),
                "{why}"
            );
        }
    }
    assert!(compared > 100, "only {compared} cases have a sequence that can be alone");
}
