//! The tile kernel in the shapes that GPUs get, which the grid's runs on software drivers do not choose:
//! every shape that a table may ask for, written out and in loops, and what workgroup memory of 16 KiB makes
//! of them.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod common;

use heedful::kernel::{Kernel, KernelSpec};
use heedful::plan::tuning::{Class, Repeats, TileRow};
use heedful::verify::data::{CaseData, DataOptions};
use heedful::verify::truth::Truth;
use heedful::{Align, Attention, Capabilities, DType, Engine, Path, Plan, Policy, Shape, Tuning};

fn row([down, across, keys]: [u32; 3], repeats: Repeats) -> TileRow {
    let (class, device) = (Class::Any, "".into());
    TileRow { class, device, max_dim: 512, down, across, keys, repeats }
}

fn policy(row: TileRow) -> Policy {
    let tuning = Some(Tuning { tile: vec![row], ..Tuning::default() }.into());
    Policy { path: Path::FusedTile, tuning, ..Policy::default() }
}

fn tile(plan: &Plan) -> &KernelSpec {
    plan.kernels().into_iter().find(|spec| spec.kernel == Kernel::FusedForwardTile).unwrap()
}

fn prove(engine: &Engine, call: &Attention, row: TileRow, options: &DataOptions) {
    let plan = engine.plan_with(call, &policy(row)).unwrap();
    let data = CaseData::generate(plan.problem(), 7, options);
    let truth = Truth::measure(plan.problem(), &data.inputs()).unwrap();
    let found = engine.run_host(&plan, &data.inputs()).unwrap();
    for comparison in [truth.check_o(&found.o), truth.check_lse(&found.lse)] {
        assert!(comparison.pass, "{}: {}", tile(&plan), comparison.message());
    }
}

#[test]
fn every_shape_is_right() {
    let Some(engine) = common::gpu::engine("every_shape_of_the_tile") else { return };
    let grids = [[8, 8], [8, 16], [16, 8], [16, 16]];
    let shapes = grids.iter().flat_map(|[down, across]| [64, 128].map(|n| [*down, *across, n]));
    // Rows, keys and channels that no tile divides; some rows see nothing.
    let shape = Shape { dim_v: 20, ..Shape::self_attention(1, 2, 1, 36) };
    let shape = Shape { seq_q: 70, seq_kv: 150, heads_kv: 1, ..shape };
    let calls = [
        Attention::new(shape).with_lse(),
        Attention::new(shape).with_lse().causal(Align::Offset(-3)).mask([1, 1, 70, 150]),
    ];
    for (i, shape) in shapes.enumerate() {
        // Written out each takes a driver on the CPU seconds to compile.
        let some = if i % 3 == 0 { Repeats::Written } else { Repeats::Eights };
        prove(&engine, &calls[i % 2], row(shape, some), &DataOptions::default());
        prove(&engine, &calls[(i + 1) % 2], row(shape, Repeats::Loops), &DataOptions::default());
    }
    // Half the rows, and more columns than invocations across.
    let wide = |shape| Shape { dim_qk: 16, dim_v: 140, ..shape };
    let [plain, masked] = calls;
    let more = Attention { shape: wide(shape), ..masked.clone() };
    for (call, repeats) in
        [(plain, Repeats::Eights), (masked, Repeats::Loops), (more, Repeats::Eights)]
    {
        prove(&engine, &call, row([8, 32, 128], repeats), &DataOptions::default());
    }
}

#[test]
fn what_is_hidden_and_not_finite_is_left_out_where_steps_are_written_out() {
    let Some(engine) = common::gpu::engine("written_out") else { return };
    let call = Attention::new(Shape::self_attention(1, 1, 100, 16)).with_lse();
    let call = call.dtype(DType::F16).causal(Align::TopLeft);
    let options = DataOptions { special: true, ..DataOptions::default() };
    prove(&engine, &call, row([8, 16, 128], Repeats::Written), &options);
}

#[test]
fn tiles_are_cut_to_workgroup_memory() {
    let plan = |dim: u32, masked: bool, bytes: u32, invocations: u32| {
        let call = Attention::new(Shape::self_attention(1, 1, 64, dim));
        let call = if masked { call.causal(Align::TopLeft) } else { call };
        let caps = Capabilities {
            max_workgroup_bytes: bytes,
            max_invocations: invocations,
            ..Capabilities::default()
        };
        Plan::new(&call.validate().unwrap(), &caps, &policy(row([16, 16, 128], Repeats::Written)))
    };
    let shape = |plan: Plan| tile(&plan).block_tile().map(|x| [x.keys, x.depth, x.keys_v]).unwrap();
    for dim in [1, 3, 64, 80, 128, 256, 320, 448, 512] {
        // Four keys of v of dim 512 and the weights leave no room for the flag that a mask asks for.
        for masked in [false, true].into_iter().take(if dim == 512 { 1 } else { 2 }) {
            let plan = plan(dim, masked, 16 << 10, 256).unwrap();
            let resources = heedful::kernel::Resources::of(tile(&plan));
            assert!(resources.workgroup_bytes <= 16 << 10, "{plan}");
        }
    }
    assert!(plan(512, true, 16 << 10, 256).is_err());
    assert_eq!(shape(plan(128, false, 16 << 10, 256).unwrap()), [128, 16, 16]);
    assert_eq!(shape(plan(128, true, 16 << 10, 256).unwrap()), [64, 16, 8]);
    assert_eq!(shape(plan(128, true, 32 << 10, 256).unwrap()), [128, 16, 16]);
    let refused = plan(64, false, 32 << 10, 128).unwrap_err().to_string();
    assert!(refused.contains("fits 128 invocations and 32768 B"), "{refused}");
    let refused = plan(64, false, 8 << 10, 256).unwrap_err().to_string();
    assert!(refused.contains("fits 256 invocations and 8192 B"), "{refused}");
}

#[test]
fn what_is_no_sum_in_one_pass_is_refused_with_the_reason() {
    let shape = Shape::self_attention(1, 1, 64, 16);
    let reason = |call: Attention| {
        let problem = call.validate().unwrap();
        let policy = Policy { path: Path::FusedTile, ..Policy::default() };
        let error = Plan::new(&problem, &Capabilities::default(), &policy).unwrap_err();
        error.rejections()[0].reason.clone()
    };
    let call = || Attention::new(shape);
    assert!(reason(call().additive(1.0)).starts_with("additive scores"));
    assert!(
        reason(call().edges(heedful::Edges { count: 64, bias: false }))
            .starts_with("rows of a graph")
    );
    let hard = reason(call().normalizer(heedful::Normalizer::Hard));
    assert_eq!(hard, "hard is not a weighted sum in one pass");
}

#[test]
fn rows_of_a_table_are_checked() {
    let error = |row: TileRow| {
        let table = Tuning { tile: vec![row], ..Tuning::default() };
        table.validate().unwrap_err().to_string()
    };
    assert!(error(row([12, 8, 64], Repeats::Written)).contains("invocations down of tile row 0"));
    assert!(error(row([8, 64, 64], Repeats::Written)).contains("invocations across of tile row 0"));
    let few = error(row([8, 32, 64], Repeats::Written));
    assert!(few.contains("keys of tile row 0") && few.contains("128 beside 32 across"), "{few}");
    assert!(error(row([16, 32, 128], Repeats::Written)).contains("invocations down of tile row 0"));
    assert!(error(row([8, 8, 96], Repeats::Written)).contains("keys of tile row 0"));
}
