//! Properties of descriptors: any value of every field is refused by name or planned, never a panic, and
//! whatever is accepted runs on every path and agrees with the reference.
//!
//! The seed is fixed and printed, so that a failure replays; `PROPTEST_RNG_SEED` and `PROPTEST_CASES`
//! look further.

mod common;
#[path = "properties/forms.rs"]
mod forms;
#[path = "properties/small.rs"]
mod small;
#[path = "properties/wild.rs"]
mod wild;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use heedful::problem::Operand;
use heedful::verify::data::{CaseData, DataOptions};
use heedful::verify::execute::{Execution, Placement};
use heedful::verify::run::{Outcome, run};
use heedful::verify::truth::Truth;
use heedful::{
    Align, Attention, Engine, Layout, Path, Plan, Policy, Shape, Strides, WeightsAt, wgpu,
};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{RngSeed, TestCaseResult, TestRunner};

use small::Small;

const SEED: u64 = 20_240_817;

/// Runs a property over so many values from the fixed seed, unless the environment says otherwise.
fn hold<S: Strategy>(cases: u32, values: &S, property: impl Fn(S::Value) -> TestCaseResult) {
    let given = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { given.cases } else { cases };
    let rng_seed = match given.rng_seed {
        RngSeed::Random => RngSeed::Fixed(SEED),
        fixed @ RngSeed::Fixed(_) => fixed,
    };
    println!("{cases} cases from {rng_seed:?}");
    let config = ProptestConfig {
        cases,
        rng_seed,
        failure_persistence: None,
        max_shrink_iters: 400,
        ..given
    };
    if let Err(failure) = TestRunner::new(config).run(values, property) {
        panic!("{rng_seed:?}: {failure}");
    }
}

#[test]
fn any_descriptor_is_refused_by_name_or_planned() {
    let paths = select(vec![Path::Auto, Path::Split, Path::Fused, Path::Staged]);
    let workspace = prop_oneof![Just(256_u64 << 20), 0_u64..100_000, Just(u64::MAX)];
    let values = (wild::attention(), wild::capabilities(), paths, workspace);
    let (valid, planned) = (Cell::new(0), Cell::new(0));
    // Fields, and whether a descriptor that asked for it was planned.
    let served = RefCell::new(BTreeMap::new());
    hold(2000, &values, |(attention, caps, path, max_workspace_bytes)| {
        // The same, packed and with a table: refused or planned, whatever the sizes are.
        let s = attention.shape;
        let packed = Attention { weights: None, kv_lengths: false, ..attention.clone() };
        let packed = packed.packed(s.seq_q.wrapping_mul(3), s.seq_kv).table(s.batch);
        if let Ok(problem) = packed.validate() {
            let _ = Plan::new(&problem, &caps, &Policy { path, ..Policy::default() });
        }
        let problem = match attention.validate() {
            Ok(problem) => problem,
            Err(error) => {
                prop_assert!(error.is_invalid(), "{error}");
                prop_assert!(error.argument().is_some_and(|name| !name.is_empty()), "{error}");
                return Ok(());
            }
        };
        valid.set(valid.get() + 1);
        prop_assert!(problem.scale().is_finite());
        prop_assert!(problem.operands().len() >= 4);
        prop_assert!(!problem.to_string().is_empty());
        let policy = Policy { path, max_workspace_bytes, ..Policy::default() };
        match Plan::new(&problem, &caps, &policy) {
            Ok(plan) => {
                planned.set(planned.get() + 1);
                for (field, on) in wild::asked(&attention) {
                    *served.borrow_mut().entry(field).or_insert(false) |= on;
                }
                let most = max_workspace_bytes.min(caps.max_buffer_bytes);
                prop_assert!(plan.workspace_bytes() <= most, "{plan}");
                prop_assert!(path == Path::Auto || plan.path() == path, "{plan}");
                prop_assert!(plan.to_string().contains("kernel"));
            }
            Err(error) => {
                prop_assert!(error.is_unsupported(), "{error}");
                prop_assert!(!error.rejections().is_empty(), "{error}");
            }
        }
        Ok(())
    });
    println!("{} valid, {} planned", valid.get(), planned.get());
    assert!(planned.get() > 50, "only {} of the descriptors were planned", planned.get());
    // A field that is always refused, or never drawn, is not tried here.
    let mut never = served.into_inner();
    never.retain(|_, served| !*served);
    assert!(never.is_empty(), "never planned: {:?}", never.keys());
}

#[test]
fn element_counts_beyond_u64_are_refused() {
    // No row, but keys that all lie at one place: each tensor is small, the mask over it is not.
    let everywhere = Layout::Strided(Strides { batch: 0, head: 0, row: 0 });
    let shape = Shape {
        batch: 1 << 24,
        heads_q: 1 << 16,
        heads_kv: 1,
        seq_q: 0,
        seq_kv: 1 << 28,
        dim_qk: 1,
        dim_v: 1,
    };
    let keys = Attention::new(shape).layout_k(everywhere).layout_v(everywhere);
    let full = [shape.batch, shape.heads_q, 1, shape.seq_kv];
    for (name, attention) in
        [("mask shape", keys.clone().mask(full)), ("bias shape", keys.clone().bias(full))]
    {
        let error = attention.validate().expect_err("2^68 elements");
        assert_eq!(error.argument(), Some(name), "{error}");
    }
}

/// Runs a descriptor on a path: right, or unsupported with a reason.
fn agrees(engine: &Engine, small: &Small, path: Path) -> Result<bool, TestCaseError> {
    let failed = |error: heedful::Error| TestCaseError::fail(error.to_string());
    let problem = small.attention.validate().map_err(failed)?;
    let data = CaseData::generate(&problem, small.seed, &small.options);
    let truth = Truth::measure(&problem, &data.inputs()).map_err(failed)?;
    let inputs = data.inputs();
    let check = |x: &Execution| truth.check(&problem, &x.outputs);
    match run(engine, &small.attention, path, &inputs, small.placement, check).map_err(failed)? {
        Outcome::Unsupported(reason) => {
            prop_assert!(!reason.is_empty());
            Ok(false)
        }
        Outcome::Ran(ran) => {
            let failure = ran.failure();
            prop_assert!(failure.is_none(), "{path} {problem}: {}", failure.unwrap_or_default());
            let wanted = 1 + usize::from(small.attention.lse);
            prop_assert!(ran.comparisons.len() >= wanted, "outputs were left out");
            prop_assert!(ran.comparisons.iter().any(|(operand, _)| *operand == Operand::O));
            Ok(true)
        }
    }
}

#[test]
fn small_descriptors_run_on_every_path_and_agree() {
    let Some(engine) = common::gpu::engine("small_descriptors") else { return };
    let ran = Cell::new(0);
    hold(60, &small::small(), |small| {
        for path in [Path::Split, Path::Fused, Path::Staged] {
            ran.set(ran.get() + u32::from(agrees(&engine, &small, path)?));
        }
        Ok(())
    });
    println!("{} runs", ran.get());
    assert!(ran.get() > 60, "only {} runs", ran.get());
}

/// An engine of the best adapter's device without any optional feature: no subgroups.
fn plain_engine() -> Engine {
    let adapters = pollster::block_on(Engine::adapters());
    let descriptor = wgpu::DeviceDescriptor::default();
    let (device, queue) =
        pollster::block_on(adapters[0].request_device(&descriptor)).expect("a device");
    Engine::from_wgpu(device, queue)
}

/// A visible NaN or infinity shows in every row that sees it, as it does in the reference: a broken
/// input is not turned into a plausible 0.
#[test]
fn special_values_that_are_visible_reach_the_outputs() {
    let Some(engine) = common::gpu::engine("special_values") else { return };
    let shape = Shape { heads_kv: 1, ..Shape::self_attention(1, 2, 70, 12) };
    let plain = Attention::new(shape).with_lse();
    let causal = plain.clone().causal(Align::TopLeft).sinks();
    let weights = plain.clone().with_weights(WeightsAt::Probabilities);
    let few = Attention::new(Shape { seq_q: 9, ..shape }).with_lse();
    let hidden = few.clone().causal(Align::BottomRight);
    for engine in [engine, plain_engine()] {
        for (attention, path) in [
            (&plain, Path::Fused),
            (&causal, Path::Fused),
            (&plain, Path::Staged),
            (&causal, Path::Staged),
            (&weights, Path::Staged),
            (&few, Path::Split),
            (&hidden, Path::Split),
        ] {
            let problem = attention.validate().expect("a valid call");
            for (value, where_to) in [f64::NAN, f64::INFINITY]
                .into_iter()
                .flat_map(|x| ["q", "k", "v", "qv"].map(|w| (x, w)))
            {
                let mut data = CaseData::generate(&problem, 1, &DataOptions::default());
                let row = 40 * 12;
                if where_to.contains('q') {
                    data.q[(attention.shape.seq_q as usize / 2) * 12 + 3] = value;
                }
                if where_to.contains('k') {
                    data.k[row + 3] = value;
                }
                if where_to.contains('v') {
                    // Every value, so that nothing else can bring the NaN of q to o.
                    data.v.fill(value);
                }
                let inputs = data.inputs();
                let truth = Truth::measure(&problem, &inputs).expect("the reference serves all");
                let check = |x: &Execution| truth.check(&problem, &x.outputs);
                let outcome = run(&engine, attention, path, &inputs, Placement::Aligned, check);
                match outcome.expect("a run") {
                    Outcome::Ran(ran) => {
                        let what = format!("{value} in {where_to}, {}", ran.kernel);
                        assert_eq!(ran.failure(), None, "{what}");
                    }
                    Outcome::Unsupported(reason) => panic!("{reason}"),
                }
            }
        }
    }
}
