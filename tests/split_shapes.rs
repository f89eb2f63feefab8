//! The split kernel in the shapes that GPUs get, which the grid's runs on software drivers do not choose:
//! invocations that read a key's row side by side, more of them than keys, and how shares are joined.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod common;

use heedful::kernel::{Kernel, KernelSpec};
use heedful::plan::tuning::{Class, Repeats, SplitRow, TileRow};
use heedful::verify::data::{CaseData, DataOptions};
use heedful::verify::truth::Truth;
use heedful::{
    Align, Attention, Capabilities, DType, Engine, Path, Plan, Policy, Scalar, Shape, Storage,
    Tuning,
};

fn row([rows, lanes, keys, key_lanes]: [u32; 4]) -> SplitRow {
    SplitRow { class: Class::Any, device: "".into(), max_dim: 512, rows, lanes, keys, key_lanes }
}

fn policy(shape: [u32; 4]) -> Policy {
    let tuning = Tuning { split: vec![row(shape)], ..Tuning::default() };
    Policy { path: Path::Split, tuning: Some(tuning.into()), ..Policy::default() }
}

fn split(plan: &Plan) -> &KernelSpec {
    plan.kernels().into_iter().find(|spec| spec.kernel == Kernel::SplitForward).unwrap()
}

fn prove(engine: &Engine, call: &Attention, policy: &Policy, options: &DataOptions) {
    prove_plan(engine, &engine.plan_with(call, policy).unwrap(), options);
}

fn prove_plan(engine: &Engine, plan: &Plan, options: &DataOptions) {
    let data = CaseData::generate(plan.problem(), 7, options);
    let truth = Truth::measure(plan.problem(), &data.inputs()).unwrap();
    let found = engine.run_host(plan, &data.inputs()).unwrap();
    let lse = plan.problem().attention().lse.then(|| truth.check_lse(&found.lse));
    for comparison in [truth.check_o(&found.o)].into_iter().chain(lse) {
        assert!(comparison.pass, "{plan}: {}", comparison.message());
    }
}

/// Four query heads on two, three rows: six rows of a group, which no tile of four divides.
fn shape(dim: u32) -> Shape {
    Shape { heads_kv: 2, seq_q: 3, seq_kv: 333, ..Shape::self_attention(2, 4, 1, dim) }
}

#[test]
fn every_shape_is_right() {
    let Some(engine) = common::gpu::engine("every_shape_of_split") else { return };
    let calls = [
        Attention::new(shape(64)).with_lse(),
        Attention::new(shape(64)).with_lse().causal(Align::BottomRight).mask([2, 1, 3, 333]),
        Attention::new(Shape { dim_v: 20, ..shape(48) }).with_lse(),
    ];
    let shapes = [
        [4, 64, 64, 8],
        [4, 128, 64, 8],
        [2, 128, 128, 4],
        [1, 32, 32, 16],
        [2, 256, 64, 16],
        [4, 16, 64, 2],
    ];
    for (i, shape) in shapes.into_iter().enumerate() {
        prove(&engine, &calls[i % 3], &policy(shape), &DataOptions::default());
        prove(&engine, &calls[(i + 1) % 3], &policy(shape), &DataOptions::default());
    }
}

#[test]
fn every_storage_is_right() {
    let Some(engine) = common::gpu::engine("every_storage_of_split") else { return };
    let call = || Attention::new(shape(64)).with_lse();
    let kept = |storage| call().kv_storage(storage);
    let calls = [
        call().dtype(DType::F16),
        call().dtype(DType::Bf16),
        kept(Storage::F16),
        kept(Storage::Int8),
        kept(Storage::Int4),
        call().paged(50, 16, 21),
    ];
    for call in calls {
        prove(&engine, &call, &policy([4, 64, 64, 8]), &DataOptions::default());
    }
}

#[test]
fn what_is_hidden_and_not_finite_is_left_out() {
    let Some(engine) = common::gpu::engine("hidden_and_not_finite") else { return };
    let call = Attention::new(shape(64)).with_lse().causal(Align::BottomRight);
    let options = DataOptions { special: true, poison: true, ..DataOptions::default() };
    prove(&engine, &call, &policy([4, 64, 64, 8]), &options);
    let lost = DataOptions { lost: true, ..DataOptions::default() };
    prove(&engine, &Attention::new(shape(64)).with_lse(), &policy([4, 64, 64, 8]), &lost);
}

/// More rows than one workgroup takes: tiles of 64 rows and keys, in shapes that GPUs get and as planned here.
#[test]
fn many_rows_are_split_on_tiles() {
    let Some(engine) = common::gpu::engine("many_rows") else { return };
    let shape = Shape { heads_kv: 4, seq_q: 70, seq_kv: 500, dim_v: 20, ..shape(36) };
    prove_on_tiles(&engine, shape, Kernel::SplitForwardTile);
}

/// The same where rows of all heads that share k and v are numbered through: 140 that fill three tiles instead of four,
/// and 80, four of each of 20 heads, that are hardly more than one.
#[test]
fn rows_of_a_group_fill_tiles() {
    let Some(engine) = common::gpu::engine("rows_of_a_group") else { return };
    let many = Shape { seq_q: 70, seq_kv: 500, dim_v: 20, ..shape(36) };
    prove_on_tiles(&engine, many, Kernel::SplitForwardGroup);
    let few = Shape { heads_q: 40, seq_q: 4, ..many };
    prove_on_tiles(&engine, few, Kernel::SplitForwardGroup);
}

fn prove_on_tiles(engine: &Engine, shape: Shape, kernel: Kernel) {
    let tile = |down, across, keys, repeats| {
        let (class, device) = (Class::Any, "".into());
        let tile = vec![TileRow { class, device, max_dim: 512, down, across, keys, repeats }];
        let tuning = Some(Tuning { tile, ..Tuning::default() }.into());
        Policy { path: Path::Split, tuning, ..Policy::default() }
    };
    let plain = Attention::new(shape).with_lse();
    let calls = [
        (plain.clone(), tile(16, 8, 64, Repeats::Loops)),
        // Rows at the start see no key of the last shares, and none at all.
        (
            plain.clone().causal(Align::Offset(-3)).mask([2, 1, shape.seq_q, 500]),
            tile(8, 16, 128, Repeats::Written),
        ),
        (plain.clone().sinks().kv_lengths().dtype(DType::F16), tile(16, 16, 64, Repeats::Loops)),
        (
            plain.clone().paged(80, 16, 32).kv_storage(Storage::Int8),
            tile(16, 8, 64, Repeats::Loops),
        ),
        (
            Attention::new(shape).normalizer(heedful::Normalizer::Sigmoid { bias: Scalar(-1.0) }),
            tile(8, 8, 64, Repeats::Loops),
        ),
        (plain.clone().packed(shape.seq_q * 10 / 7, 700), tile(8, 32, 128, Repeats::Eights)),
    ];
    for (call, policy) in calls {
        for batch_invariant in [false, true] {
            let policy = Policy { batch_invariant, ..policy.clone() };
            let plan = engine.plan_with(&call, &policy).unwrap();
            assert!(plan.shares().unwrap().n > 1 || batch_invariant, "{plan}");
            assert!(plan.kernels().iter().any(|x| x.kernel == kernel), "{plan}");
            prove_plan(engine, &plan, &DataOptions::default());
        }
    }
    let special = DataOptions { special: true, poison: true, ..DataOptions::default() };
    let plan =
        engine.plan_with(&plain.causal(Align::BottomRight), &tile(16, 8, 64, Repeats::Loops));
    prove_plan(engine, &plan.unwrap(), &special);
}

/// One row of many heads: hardware reads each key once for all of them, software has no use for tiles.
#[test]
fn rows_of_a_group_are_a_tile_on_hardware() {
    let planned = |device_type: &str, heads: u32, keys: u32| {
        let caps = Capabilities { device_type: device_type.into(), ..Capabilities::default() };
        let shape = Shape { heads_kv: 1, seq_kv: keys, ..Shape::self_attention(1, heads, 1, 64) };
        let call = Attention::new(Shape { dim_qk: 576, dim_v: 512, ..shape });
        Plan::new(&call.validate().unwrap(), &caps, &Policy::default()).unwrap()
    };
    let main = |device_type, heads, keys| planned(device_type, heads, keys).kernels()[0].kernel;
    assert_eq!(main("discretegpu", 128, 4096), Kernel::SplitForwardGroup);
    assert_eq!(main("discretegpu", 16, 4096), Kernel::SplitForward);
    assert_eq!(main("cpu", 128, 4096), Kernel::SplitForward);
    assert_eq!(main("discretegpu", 63, 4096), Kernel::SplitForward);
    assert_ne!(main("discretegpu", 128, 64), Kernel::SplitForwardGroup);
    // Two tiles of 64 heads, and shares of at least 64 keys.
    let plan = planned("discretegpu", 128, 4096);
    assert_eq!(plan.shares().map(|shares| shares.n), Some(64));
    // Rows so few are joined several shares at a time.
    assert!(plan.kernels()[1].to_string().contains("c32s8"), "{plan}");
}

/// More rows of a group than fit 32 bits are planned, or refused with a reason.
#[test]
fn rows_of_a_group_are_counted_in_64_bits() {
    let hardware = Capabilities { device_type: "discretegpu".into(), ..Capabilities::default() };
    let shape = Shape { heads_kv: 1, ..Shape::self_attention(1, 128, 1 << 26, 8) };
    let call = Attention::new(Shape { seq_kv: 64, ..shape });
    for path in [Path::Auto, Path::Split] {
        let policy = Policy { path, ..Policy::default() };
        if let Err(error) = call.validate().and_then(|call| Plan::new(&call, &hardware, &policy)) {
            assert!(error.is_unsupported() || error.is_invalid(), "{error}");
        }
    }
}

#[test]
fn keys_are_shared_out_where_tiles_of_rows_are_few() {
    let hardware = Capabilities { device_type: "discretegpu".into(), ..Capabilities::default() };
    let plan = |heads, seq| {
        let call = Attention::new(Shape::self_attention(1, heads, seq, 64));
        Plan::new(&call.validate().unwrap(), &hardware, &Policy::default()).unwrap()
    };
    let shares = |heads, seq| plan(heads, seq).shares().map(|shares| shares.n);
    assert_eq!([shares(8, 512), shares(8, 1024), shares(1, 512)], [Some(6), Some(3), Some(8)]);
    assert_eq!([shares(8, 4096), shares(32, 1024), shares(8, 64)], [None, None, None]);
    let text = plan(8, 4096).to_string();
    assert!(text.contains("passed over split_forward_tile: 512 tiles of 64 rows"), "{text}");
}

/// Another path has other bits, so that the batch must not choose it.
#[test]
fn the_batch_does_not_choose_the_path_where_rows_must_not_depend_on_it() {
    let hardware = Capabilities { device_type: "discretegpu".into(), ..Capabilities::default() };
    let paths = |batch_invariant, shape: fn(u32) -> Shape| {
        [1, 8, 64].map(|batch| {
            let policy = Policy { batch_invariant, ..Policy::default() };
            let problem = Attention::new(shape(batch)).validate().unwrap();
            Plan::new(&problem, &hardware, &policy).unwrap().path()
        })
    };
    let square = |batch| Shape::self_attention(batch, 8, 512, 64);
    let few = |batch| Shape { seq_q: 2, ..Shape::self_attention(batch, 32, 512, 64) };
    use Path::{FusedTile, Split};
    assert_eq!(paths(false, square), [Split, FusedTile, FusedTile]);
    assert_eq!(paths(true, square), [FusedTile; 3]);
    assert_eq!(paths(false, few), [Split, FusedTile, FusedTile]);
    assert_eq!(paths(true, few), [Split; 3]);
}

#[test]
fn invocations_of_a_key_are_cut_to_its_row_and_to_subgroups() {
    let tile = |dim: u32, subgroup: u32| {
        let call = Attention::new(Shape { heads_kv: 1, ..Shape::self_attention(1, 4, 1, dim) });
        let (subgroups, subgroup_size) = (subgroup > 0, [subgroup, 64]);
        let caps = Capabilities { subgroups, subgroup_size, ..Capabilities::default() };
        let problem = call.validate().unwrap();
        let plan = Plan::new(&problem, &caps, &policy([4, 128, 64, 8])).unwrap();
        split(&plan).split_tile().unwrap().key_lanes
    };
    assert_eq!([64, 128, 96].map(|dim| tile(dim, 32)), [8, 8, 8]);
    // 18, 20 and 9 vec4s to a row; channels that are no vec4s.
    assert_eq!([72, 80, 36, 63].map(|dim| tile(dim, 32)), [2, 4, 1, 1]);
    assert_eq!([0, 4, 8].map(|subgroup| tile(64, subgroup)), [1, 4, 8]);
}

#[test]
fn rows_of_a_table_are_checked() {
    let error = |shape| {
        let table = Tuning { split: vec![row(shape)], ..Tuning::default() };
        table.validate().unwrap_err().to_string()
    };
    assert!(error([3, 64, 64, 8]).contains("rows of split row 0"));
    assert!(error([4, 64, 64, 3]).contains("invocations to a key of split row 0"));
    let keys = error([4, 64, 12, 8]);
    assert!(
        keys.contains("keys of split row 0: found 12") && keys.contains("the 8 keys of a round"),
        "{keys}"
    );
}
