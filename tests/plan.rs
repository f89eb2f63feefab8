//! Planning without a device: what a plan makes of capabilities and policies.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

use std::sync::Arc;

use heedful::kernel::Kernel;
use heedful::plan::Over;
use heedful::plan::tuning::{Class, FusedRow, SplitRow};
use heedful::{
    Align, Attention, Backward, BackwardPlan, Capabilities, DType, Edges, Operand, Path, Plan,
    Policy, Rotary, Shape, Tuning,
};

fn software() -> Capabilities {
    let subgroup_size = [8, 8];
    Capabilities {
        name: "llvmpipe".into(),
        driver: "llvmpipe Mesa 26.2.6".into(),
        device_type: "cpu".into(),
        subgroups: true,
        subgroup_size,
        shader_f16: true,
        ..Capabilities::default()
    }
}

#[test]
fn a_table_of_tile_shapes_comes_before_the_one_that_ships() {
    let call = Attention::new(Shape::self_attention(1, 8, 512, 128)).validate().unwrap();
    let tile = |tuning: Option<Tuning>, path| {
        let policy = Policy { path, tuning: tuning.map(Arc::new), ..Policy::default() };
        let plan = Plan::new(&call, &software(), &policy).unwrap();
        plan.kernels()[0].row_tile().map(|tile| (tile.rows, tile.lanes)).unwrap()
    };
    let row = |device: &str, max_dim, rows, lanes| {
        let (class, device) = (Class::Software, device.to_owned().into());
        FusedRow { class, device, max_dim, subgroup: true, rows, lanes }
    };
    let table = |rows: Vec<FusedRow>| Some(Tuning { fused: rows, ..Tuning::default() });
    let shipped = tile(None, Path::Fused);
    assert_eq!(tile(table(vec![row("Mesa 26", 128, 4, 16)]), Path::Fused), (4, 16));
    // Rows of another driver, class or dimension are passed over.
    for other in [row("Mesa 22", 128, 4, 16), row("", 64, 4, 16)] {
        assert_eq!(tile(table(vec![other]), Path::Fused), shipped);
    }
    for (rows, lanes, named) in
        [(3, 16, "rows"), (8, 16, "rows"), (4, 24, "lanes"), (4, 0, "lanes")]
    {
        let error = table(vec![row("", 128, rows, lanes)]).unwrap().validate().unwrap_err();
        assert!(error.argument().unwrap().contains(named), "{error}");
    }
    let (class, device) = (Class::Any, "".into());
    let split =
        SplitRow { class, device, max_dim: 128, rows: 4, lanes: 64, keys: 96, key_lanes: 1 };
    let error = Tuning { split: vec![split], ..Tuning::default() }.validate().unwrap_err();
    assert!(error.to_string().contains("a multiple of the 64 keys of a round"), "{error}");
}

#[test]
fn native_f16_is_used_where_it_is_faster_or_asked_for() {
    let call = Attention::new(Shape::self_attention(1, 8, 64, 64)).dtype(DType::F16);
    let problem = call.validate().unwrap();
    let native = |caps: &Capabilities, native_f16| {
        let policy = Policy { native_f16, ..Policy::default() };
        Plan::new(&problem, caps, &policy).unwrap().kernels().iter().any(|spec| spec.needs_f16())
    };
    let hardware = Capabilities { device_type: "discretegpu".into(), ..software() };
    assert!(native(&hardware, None) && !native(&software(), None));
    assert!(native(&software(), Some(true)) && !native(&hardware, Some(false)));
    let without = Capabilities { shader_f16: false, ..hardware };
    assert!(!native(&without, Some(true)));
}

#[test]
fn drivers_that_end_loops_get_shorter_ones() {
    let caps = Capabilities {
        device_type: "cpu".into(),
        max_loop_iterations: 65_535,
        ..Capabilities::default()
    };
    let plan = |seq_q: u32, path: Path, narrow: bool| {
        let shape = Shape { seq_q, seq_kv: 200_000, ..Shape::self_attention(1, 2, 1, 64) };
        let call = Attention::new(shape);
        let call = if narrow { call.window(Some(64), Some(0), Align::TopLeft) } else { call };
        let policy = Policy { path, ..Policy::default() };
        Plan::new(&call.validate().unwrap(), &caps, &policy)
    };
    let refused = plan(20, Path::Fused, false).unwrap_err();
    assert!(refused.to_string().contains("this driver ends loops after 65535"), "{refused}");
    assert_eq!(plan(20, Path::Fused, true).unwrap().path(), Path::Fused);
    let staged = plan(20, Path::Staged, false).unwrap();
    assert!(staged.block().keys <= 52_428 && staged.block().keys > 50_000, "{staged}");
    let split = plan(1, Path::Split, false).unwrap();
    let shares = split.shares().unwrap();
    assert!(shares.n >= 5, "{} shares", shares.n);
    let refused = plan(20, Path::FusedTile, false).unwrap_err();
    assert!(refused.to_string().contains("this driver ends loops after 65535"), "{refused}");
    assert_eq!(plan(20, Path::FusedTile, true).unwrap().path(), Path::FusedTile);
    assert_eq!(plan(20, Path::Auto, false).unwrap().path(), Path::Staged);
}

/// Gradients have no carries between ranges of keys, so what no block makes shorter is refused, with both numbers.
#[test]
fn gradients_whose_loops_a_driver_ends_are_refused_or_in_smaller_blocks() {
    let caps = Capabilities { max_loop_iterations: 65_535, ..software() };
    let plan = |shape: Shape, caps: &Capabilities| {
        let backward = Backward::of(Attention::new(shape)).validate().unwrap();
        BackwardPlan::new(&backward, caps, &Policy::default())
    };
    // 200 000 keys are 250 000 turns: 16 keys to 16 turns and their 4 loads.
    let keys = Shape { seq_kv: 200_000, ..Shape::self_attention(1, 1, 2, 8) };
    let refused = plan(keys, &caps).unwrap_err().to_string();
    assert!(refused.contains("250") && refused.contains("ends loops after 65535"), "{refused}");
    let rows = Shape { seq_q: 200_000, ..Shape::self_attention(1, 1, 2, 8) };
    let blocks = |caps| plan(rows, caps).unwrap().block().rows;
    assert!(blocks(&caps) <= 52_428 && blocks(&software()) == 200_000);
    // The matrix of a general score is summed over all rows, whatever the blocks.
    let general = Attention::new(rows).general(8);
    let all = Backward::all(general).unwrap().validate().unwrap();
    // So are an additive score's weights over eighths of all rows; biases of edges over sequences and heads, centres
    // over heads, which no call has so many of.
    let additive = Shape { seq_q: 600_000, ..Shape::self_attention(1, 1, 2, 8) };
    let additive =
        Backward::all(Attention::new(additive).additive(1.0)).unwrap().validate().unwrap();
    let refused = BackwardPlan::new(&additive, &caps, &Policy::default()).unwrap_err().to_string();
    assert!(refused.contains("iterations over rows"), "{refused}");
    let refused = BackwardPlan::new(&all, &caps, &Policy::default()).unwrap_err().to_string();
    assert!(
        refused.contains("iterations over rows, this driver ends loops after 65535"),
        "{refused}"
    );
    BackwardPlan::new(&all, &software(), &Policy::default()).unwrap();
}

/// Loops within a pair's masks count too where a driver ends loops; and a policy for the forward pass does not make
/// gradients take what is slower.
#[test]
fn fused_gradients_are_left_where_loops_end_early_or_tiles_are_faster() {
    let path = |attention: Attention, caps: &Capabilities, path| {
        let problem = Backward::of(attention.with_lse()).validate().unwrap();
        BackwardPlan::new(&problem, caps, &Policy { path, ..Policy::default() }).unwrap().path()
    };
    let limited = Capabilities { max_loop_iterations: 65_535, ..software() };
    let call = || Attention::new(Shape::self_attention(1, 1, 4096, 64));
    let graph = || call().edges(Edges { count: 65_536, bias: false });
    assert_eq!(path(call(), &limited, Path::Auto), Path::Fused);
    assert_eq!(path(graph(), &limited, Path::Auto), Path::Staged);
    assert_eq!(path(graph(), &software(), Path::Auto), Path::Fused);
    let hardware = Capabilities { device_type: "discretegpu".into(), ..Capabilities::default() };
    // No path of gradients.
    assert_eq!(path(call(), &hardware, Path::Split), Path::FusedTile);
    assert_eq!(path(call(), &hardware, Path::Fused), Path::Fused);
    assert_eq!(path(call(), &limited, Path::FusedTile), Path::FusedTile);
}

/// Gradients lie on tiles where these spill nothing, in planes elsewhere; where all sums of a kernel would spill, each
/// gradient has a kernel of its own.
#[test]
fn gradients_lie_on_tiles_where_registers_suffice() {
    let kernels = |name: &str, dim| {
        let device = Capabilities {
            name: name.into(),
            device_type: "discretegpu".into(),
            ..Capabilities::default()
        };
        let call = Attention::new(Shape::self_attention(1, 8, 512, dim)).with_lse();
        let plan =
            BackwardPlan::new(&Backward::of(call).validate().unwrap(), &device, &Policy::default())
                .unwrap();
        let said = plan
            .to_string()
            .contains("passed over fused-tile: an invocation's registers spill at head dimension");
        assert_eq!(said, plan.path() == Path::Staged, "{plan}");
        (plan.path() == Path::FusedTile).then(|| {
            let of = |kernel| plan.kernels().iter().filter(|spec| spec.kernel == kernel).count();
            [
                Kernel::FusedBackwardTileRows,
                Kernel::FusedBackwardTileQueries,
                Kernel::FusedBackwardTileKeys,
            ]
            .map(of)
        })
    };
    let (together, queries, apart) = (Some([1, 0, 1]), Some([1, 1, 1]), Some([1, 1, 2]));
    for (name, wanted) in [
        ("NVIDIA GeForce RTX 3080", [together; 3]),
        ("AMD Radeon RX 7900", [together; 3]),
        ("Adreno (TM) 740", [together, together, apart]),
        ("Apple M1", [queries, queries, apart]),
        ("Intel(R) Arc(tm) A770 Graphics", [apart, apart, None]),
    ] {
        assert_eq!([64, 128, 256].map(|dim| kernels(name, dim)), wanted, "{name}");
    }
}

/// What could serve and is slower is not refused; it serves where nothing else does.
#[test]
fn what_is_slower_is_passed_over() {
    let hardware = Capabilities { device_type: "discretegpu".into(), ..Capabilities::default() };
    let plan = |call: &Attention| {
        Plan::new(&call.validate().unwrap(), &hardware, &Policy::default()).unwrap()
    };
    let few = plan(&Attention::new(Shape { seq_q: 16, ..Shape::self_attention(9, 32, 2048, 64) }));
    let text = few.to_string();
    assert_eq!(few.path(), Path::FusedTile);
    assert!(text.contains("passed over split_forward: k and v would be read"), "{text}");
    assert!(!text.contains("refused split_forward:"), "{text}");
    assert_eq!(few.passed_over()[0].candidate, "split_forward");
    assert!(few.rejections().iter().all(|x| x.candidate != "split_forward"), "{text}");

    let wide = Attention::new(Shape::self_attention(16, 8, 300, 512));
    assert_eq!(plan(&wide).path(), Path::FusedTile);
    // Additive scores are no products, so that no tile serves them.
    let additive = wide.clone().additive(1.0);
    let staged = plan(&additive);
    assert_eq!(staged.path(), Path::Staged, "{staged}");
    assert!(staged.to_string().contains("passed over fused_forward: 1024 f32 registers"));
    // Without scratch nothing is staged.
    let policy = Policy { max_workspace_bytes: 1 << 10, ..Policy::default() };
    let fused = Plan::new(&additive.validate().unwrap(), &hardware, &policy).unwrap();
    assert_eq!((fused.path(), fused.passed_over().len()), (Path::Fused, 0), "{fused}");

    // Software drivers take turns at barriers.
    let square = Attention::new(Shape::self_attention(1, 2, 300, 64));
    let plan = Plan::new(&square.validate().unwrap(), &software(), &Policy::default()).unwrap();
    assert_eq!(plan.path(), Path::Fused);
    assert!(plan.to_string().contains("passed over fused_forward_tile: "), "{plan}");
}

#[test]
fn what_a_device_lacks_for_subgroups_is_named() {
    let problem = Attention::new(Shape::self_attention(1, 2, 64, 64)).validate().unwrap();
    let reason = |caps: Capabilities| {
        let policy = Policy { path: Path::Fused, ..Policy::default() };
        let plan = Plan::new(&problem, &caps, &policy).unwrap();
        plan.rejections()[0].reason.clone()
    };
    let without = Capabilities { subgroups: false, ..software() };
    assert_eq!(reason(without), "needs subgroup operations, which the device lacks");
    let small = reason(Capabilities { subgroup_size: [2, 8], ..software() });
    assert_eq!(small, "needs subgroups of at least 4, those of the device have 2 to 8");
    let untuned = reason(Capabilities { device_type: "discretegpu".into(), ..software() });
    assert_eq!(untuned, "no tile is tuned for it on devices of type discretegpu");
}

/// A plan's work is data: kernels, what each goes over, and nothing that is bound or recorded.
#[test]
fn a_plan_is_steps_in_the_order_of_its_dispatches() {
    let steps = |attention: &Attention, caps: &Capabilities, path| -> Vec<(String, Over)> {
        let policy = Policy { path, ..Policy::default() };
        let plan = Plan::new(&attention.validate().unwrap(), caps, &policy).unwrap();
        plan.steps().map(|step| (step.kernel.kernel.name().to_owned(), step.over)).collect()
    };
    let of = |list: &[(&str, Over)]| -> Vec<(String, Over)> {
        list.iter().map(|(name, over)| ((*name).to_owned(), *over)).collect()
    };
    let call = Attention::new(Shape::self_attention(2, 4, 300, 64));
    let caps = software();
    assert_eq!(
        steps(&call, &caps, Path::Staged),
        of(&[
            ("staged_score", Over::KeyRanges),
            ("staged_normalize", Over::Rows),
            ("staged_value", Over::KeyRanges),
        ])
    );
    let masked = call.clone().mask([1, 1, 300, 300]).rotary(Rotary::new(64, 300));
    let copy = |operand| Over::Copy { operand, bytes: 2 * 4 * 300 * 64 * 4 };
    assert_eq!(
        steps(&masked, &caps, Path::Fused),
        of(&[
            ("prepare", copy(Operand::Q)),
            ("prepare", copy(Operand::K)),
            ("classify", Over::Table),
            ("fused_forward_subgroup", Over::Block),
        ])
    );
    let few = Attention::new(Shape { seq_q: 1, ..call.shape });
    assert_eq!(
        steps(&few, &caps, Path::Split),
        of(&[("split_forward", Over::Block), ("split_merge", Over::Block)])
    );
}
