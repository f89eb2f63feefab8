//! Planted faults are found: each row below is a fault in a kernel's text and cases of the quick grid that must
//! fail for it, with the reason that they must give, and must pass without it.
//!
//! How the faults were chosen: from what goes wrong in attention kernels. One of each kind that other projects
//! have had (barriers, tails, heads of a group, subgroup sizes, order of softcap and mask, sinks in merges, narrow
//! accumulators and scores, finite and infinite sentinels, alignment, pages, scales of quantised rows, bases of
//! logarithms, empty rows, NaN behind a mask), and one of each kind that the verification claims to see beside
//! wrong numbers (rows that are not written, writes outside, runs that differ). Where the paths do the same in
//! different code, each path has its own. A fault that a grid does not find is a case that the grid lacks.
//!
//! Each row also says what the self-test of `Policy::self_test` makes of the fault: it refuses the kernel, or it
//! cannot see the fault, with the reason why.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod common;
#[path = "planted/edits.rs"]
mod edits;

use common::skip::skipped;
use edits::{cut, halves_in, mask_first, subgroups_of_32, swap, swaps};
use heedful::kernel::{Kernel, KernelSpec, compose};
use heedful::verify::cases::{Case, Grid, grid};
use heedful::verify::execute::{Execution, Placement};
use heedful::verify::run::{Outcome, run};
use heedful::verify::truth::Truth;
use heedful::{Engine, Path, Policy, SelfTest};

const FUSED: &[Kernel] = &[Kernel::FusedForward, Kernel::FusedForwardSubgroup];
const TILE: &[Kernel] = &[Kernel::FusedForwardTile];
const SUBGROUP: &[Kernel] = &[Kernel::FusedForwardSubgroup];
const SPLIT: &[Kernel] = &[Kernel::SplitForward];
const MERGE: &[Kernel] = &[Kernel::SplitMerge];
const SPLIT_TILE: &[Kernel] = &[Kernel::SplitForwardTile];
const SPLIT_GROUP: &[Kernel] = &[Kernel::SplitForwardGroup];
const SCORE: &[Kernel] = &[Kernel::StagedScore];
const NORMALIZE: &[Kernel] = &[Kernel::StagedNormalize];
const VALUE: &[Kernel] = &[Kernel::StagedValue];
const PREPARE: &[Kernel] = &[Kernel::Prepare];
const GRAPH: &[Kernel] = &[Kernel::EdgeForward];
const THRESHOLD: &[Kernel] = &[Kernel::StagedThreshold];
const MONOTONIC: &[Kernel] = &[Kernel::StagedMonotonic];

/// Why a case fails when numbers are wrong, and when they are no numbers.
const NUMBERS: &str = "o: largest error";
/// Whatever was in memory.
const WRONG: &str = "o: ";
const CLASSES: &str = "are NaN, ∞ or finite wrongly";
const LSE: &str = "lse: ";
const WEIGHTS: &str = "weights: ";
const OUTSIDE: &str = "written outside its elements";
const DIFFER: &str = "two runs differ";
/// One of these: memory of a workgroup is what was there before.
const EITHER: &str = "";

/// What the self-test makes of a fault.
#[derive(PartialEq)]
enum Says {
    Refuses,
    /// It lets the kernel serve; why it cannot see the fault.
    Serves(&'static str),
    /// Either, and why.
    Either(&'static str),
}
use Says::{Either, Refuses, Serves};

struct Fault {
    name: &'static str,
    kernels: &'static [Kernel],
    path: Path,
    edit: fn(&str) -> String,
    cases: &'static [&'static str],
    reason: &'static str,
    self_test: Says,
}

/// A test for each row.
macro_rules! faults {
    ($($name:ident: $kernels:ident, $path:ident, [$($case:literal),+], $reason:ident, $says:expr, $edit:expr;)*) => {
        $(#[test]
        fn $name() {
            check(&Fault {
                name: stringify!($name),
                kernels: $kernels,
                path: Path::$path,
                edit: $edit,
                cases: &[$($case),+],
                reason: $reason,
                self_test: $says,
            });
        })*
    };
}

include!("planted/faults.rs");

/// The case without the fault on one engine, with it on another.
fn check(fault: &Fault) {
    let Some(right) = common::gpu::engine(fault.name) else { return };
    let planted = common::gpu::engine(fault.name).unwrap();
    for kernel in fault.kernels {
        planted.plant(*kernel, fault.edit);
    }
    // Of the full grid: which cases the quick one leaves out follows their number.
    let mut cases = grid(Grid::Full).unwrap();
    cases.retain(|case| fault.cases.contains(&case.name.as_str()));
    assert_eq!(cases.len(), fault.cases.len(), "{}: a case is not in the grid", fault.name);
    let (mut tried, mut reasons) = (Vec::new(), Vec::new());
    for case in &cases {
        let served = match changed(&right, fault, case) {
            Ok(served) => served,
            Err(why) => {
                skipped(fault.name, format!("on {}: {why}", case.name));
                continue;
            }
        };
        assert_eq!(verdict(&right, case, fault.path), None, "{}: {}", fault.name, case.name);
        let found = verdict(&planted, case, fault.path);
        println!("{}: {served}: {found:?}", case.name);
        reasons.extend(found);
        tried.push(case);
    }
    let caught = reasons.iter().any(|why| why.contains(fault.reason));
    let name = fault.name;
    assert!(tried.is_empty() || caught, "{name}: no case says {:?}: {reasons:?}", fault.reason);
    // After the verdicts: what is refused serves nobody afterwards.
    for case in tried {
        self_test(&planted, fault, case);
    }
}

/// The kernels that serve a case, if the fault changes the text of one; else why it cannot be planted here.
fn changed(engine: &Engine, fault: &Fault, case: &Case) -> Result<String, String> {
    let subgroup = engine.capabilities().subgroup_size;
    if fault.kernels == SUBGROUP && subgroup[0] >= 32 {
        return Err(format!("subgroups of {} are what it takes them for", subgroup[0]));
    }
    let policy = Policy { path: fault.path, self_test: SelfTest::Off, ..Policy::default() };
    let plan = engine.plan_with(&case.attention, &policy).map_err(|error| error.to_string())?;
    let planted: Vec<&KernelSpec> =
        plan.kernels().into_iter().filter(|spec| fault.kernels.contains(&spec.kernel)).collect();
    if planted.is_empty() {
        return Err(format!("{} serves it here", plan.kernels()[0].kernel.name()));
    }
    // What the driver runs as one vector needs no barrier; without subgroups it does not say how wide that is.
    let caps = engine.capabilities();
    let vector = if caps.subgroups { subgroup[0] } else { u32::MAX };
    let one_vector =
        planted.iter().find_map(|spec| spec.split_tile()).filter(|x| x.lanes <= vector);
    if let Some(tile) = one_vector.filter(|_| fault.name == "split_lacks_a_barrier") {
        return Err(format!("the {} invocations of a workgroup may run as one vector", tile.lanes));
    }
    for spec in &planted {
        let text = compose(spec).text;
        assert_ne!((fault.edit)(&text), text, "{} is not planted in {spec}", fault.name);
    }
    Ok(planted.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
}

/// What is wrong with a case, as `heedful verify` says it.
fn verdict(engine: &Engine, case: &Case, path: Path) -> Option<String> {
    let (problem, data) = case.generate().unwrap();
    let inputs = data.inputs();
    let truth = Truth::measure(&problem, &inputs).unwrap();
    let check = |x: &Execution| truth.check(&problem, &x.outputs);
    match run(engine, &case.attention, path, &inputs, Placement::Aligned, check).unwrap() {
        Outcome::Ran(ran) => {
            // Where stray writes are clamped to the tensor, numbers are wrong as well, and named first.
            let stray = ran.stray_write.as_ref().map(|at| format!("{OUTSIDE}: {at}"));
            Some(ran.failure()?).into_iter().chain(stray).reduce(|a, b| format!("{a}; {b}"))
        }
        Outcome::Unsupported(why) => panic!("{}: {why}", case.name),
    }
}

/// The planted kernels are refused when they are planned with, or serve for the reason that the row gives.
fn self_test(planted: &Engine, fault: &Fault, case: &Case) {
    let policy = Policy { path: fault.path, ..Policy::default() };
    let plan = planted.plan_with(&case.attention, &policy);
    let rejections = match &plan {
        Ok(plan) => plan.rejections(),
        Err(error) => error.rejections(),
    };
    let refused = rejections.iter().find(|x| x.reason.contains("self-test"));
    let what = format!("{} on {}", fault.name, case.name);
    match (&fault.self_test, refused) {
        (Refuses, None) => panic!("{what}: the self-test lets it serve"),
        (Serves(why), Some(refused)) => panic!("{what}: refused, though {why}: {refused:?}"),
        (Either(why), verdict) => println!("{what}: {why}: {verdict:?}"),
        (Refuses, Some(_)) | (Serves(_), None) => {}
    }
}
