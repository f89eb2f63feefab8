//! Matrix units: what is planned for them, that the self-test refuses wrong kernels, and a grid on an adapter that has
//! them.
//!
//! `scripts/software-adapters --prepare mesa` brings a software driver with matrices of 8; elsewhere the tests that need them
//! say UNSUPPORTED. Matrices of 16 are composed, validated and translated by `tests/compose.rs`.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod common;

use common::gpu::{engine, matrix_engine};
use common::matrix_caps;
use common::skip;
use heedful::kernel::Kernel;
use heedful::layer::{HostWeights, LayerInputs, MultiHeadAttention};
use heedful::plan::{MatrixUnit, tuning};
use heedful::verify::alone::differs_alone;
use heedful::verify::cases::{Case, Grid, grid};
use heedful::verify::execute::Placement;
use heedful::verify::run::{Outcome, run};
use heedful::verify::truth::Truth;
use heedful::{
    Align, Attention, Axis, Blocks, Capabilities, DType, Edges, Engine, Neighborhood, Normalizer,
    Path, Plan, Policy, Rotary, Scalar, SelfTest, Shape, Storage, Tuning, WeightsAt, wgpu,
};

fn half(dim: u32) -> Attention {
    Attention::new(Shape::self_attention(1, 2, 64, dim)).dtype(DType::F16)
}

fn plan(a: &Attention, caps: &Capabilities, policy: &Policy) -> heedful::Result<Plan> {
    Plan::new(&a.validate().unwrap(), caps, policy)
}

fn asked(path: Path) -> Policy {
    Policy { path, ..Policy::default() }
}

#[test]
fn matrix_units_are_used_only_where_they_are_asked_for_and_can_serve() {
    let caps = matrix_caps(16, [32, 32], "vulkan", "discretegpu");
    let call = half(64);
    let opted = Policy { matrix_units: true, ..Policy::default() };
    assert_ne!(plan(&call, &caps, &Policy::default()).unwrap().path(), Path::FusedMatrix);
    assert_eq!(plan(&call, &caps, &opted).unwrap().path(), Path::FusedMatrix);
    assert_eq!(plan(&call, &caps, &asked(Path::StagedMatrix)).unwrap().path(), Path::StagedMatrix);
    // What they cannot serve is served by another path, with the reason among the rejections.
    let f32_call = Attention { dtype: DType::F32, ..call.clone() };
    let plain = plan(&f32_call, &caps, &opted).unwrap();
    assert!(!plain.path().is_matrix() && plain.to_string().contains("f32 tensors"), "{plain}");

    let unbounded = Normalizer::Relu { power: 1, divisor: Scalar(1.0) };
    let refused = [
        (f32_call, &caps, "f32 tensors"),
        (call.clone().kv_storage(Storage::F32), &caps, "f32 tensors"),
        (call.clone().kv_storage(Storage::Int8), &caps, "keys of 8 bits or fewer"),
        (call.clone().additive(1.0), &caps, "no matrix product"),
        (call.clone().normalizer(unbounded), &caps, "no bound"),
        (call.clone().normalizer(Normalizer::Hard), &caps, "hard"),
        (call.clone().dropout(0.5, 0), &caps, "may not fit f16"),
        (call.clone().with_weights(WeightsAt::Probabilities), &caps, "staged paths"),
        (call.clone(), &Capabilities::default(), "opened with none of real numbers"),
    ];
    for (call, caps, reason) in refused {
        let error = plan(&call, caps, &asked(Path::FusedMatrix)).unwrap_err();
        assert!(error.is_unsupported() && error.to_string().contains(reason), "{error}");
    }
    // Shapes that WGSL cannot name are listed, not used.
    let (operands, sums) = (DType::F16, DType::F32);
    let oblong = MatrixUnit { size: [16, 8, 16], operands, sums };
    let caps = Capabilities { matrix_units: vec![oblong], ..caps };
    let error = plan(&call, &caps, &asked(Path::FusedMatrix)).unwrap_err();
    assert!(error.to_string().contains("16x8x16 f16 -> f32"), "{error}");
}

#[test]
fn tiles_fit_every_device_and_every_head_dimension() {
    for (edge, sizes, backend) in [
        (8, [8, 8], "vulkan"),
        (8, [4, 64], "metal"),
        (16, [32, 32], "vulkan"),
        (16, [32, 64], "vulkan"),
    ] {
        for bytes in [16 << 10, 32 << 10, 48 << 10, 64 << 10] {
            let caps = matrix_caps(edge, sizes, backend, "discretegpu");
            let caps = Capabilities { max_workgroup_bytes: bytes, max_invocations: 256, ..caps };
            for dim in [1, 16, 64, 80, 128, 192, 256, 512] {
                let Some(tile) = tuning::matrix_tile(&caps, &half(dim).shape, None) else {
                    assert!(dim > 128 && bytes <= 32 << 10, "{edge} {bytes} {dim}");
                    continue;
                };
                assert!(tile.workgroup_bytes() <= bytes && tile.lanes() <= 256, "{tile}");
                assert_eq!(tile.lanes() % tile.rows(), 0, "{tile}: a row's invocations");
                assert_eq!(tile.keys % tile.parts(), 0, "{tile}: keys of each of them");
                assert_eq!(tile.edge, edge);
            }
        }
    }
    // Subgroups so large that an invocation would have no key.
    let caps = matrix_caps(8, [128, 128], "vulkan", "discretegpu");
    let caps = Capabilities { max_workgroup_bytes: 16 << 10, ..caps };
    assert_eq!(tuning::matrix_tile(&caps, &half(256).shape, None), None);
    // A subgroup that is smaller than a matrix is none that matrices were made for.
    let caps = matrix_caps(16, [4, 8], "vulkan", "discretegpu");
    assert_eq!(tuning::matrix_tile(&caps, &half(64).shape, None), None);
    assert_eq!(tuning::square_tile(&caps), None);
}

#[test]
fn a_borrowed_device_has_the_matrix_units_it_was_opened_with() {
    let Some(plain) = engine("a_borrowed_device") else { return };
    let properties = |edge: u32| wgpu::CooperativeMatrixProperties {
        m_size: edge,
        n_size: edge,
        k_size: edge,
        ab_type: wgpu::CooperativeScalarType::F16,
        cr_type: wgpu::CooperativeScalarType::F32,
        saturating_accumulation: false,
    };
    // Without the feature a list changes nothing.
    let (device, queue) = (plain.device().clone(), plain.queue().clone());
    let told = Engine::from_wgpu(device, queue).with_matrix_units(&[properties(8)]);
    assert_eq!(told.capabilities().matrix_edge(), None);
    let Some(engine) = matrix_engine("a_borrowed_device") else { return };
    let edge = engine.capabilities().matrix_edge().unwrap();
    let (device, queue) = (engine.device().clone(), engine.queue().clone());
    let told = Engine::from_wgpu(device, queue);
    assert_eq!(told.capabilities().matrix_edge(), None);
    let told = told.with_matrix_units(&[properties(edge)]);
    assert_eq!(told.capabilities().matrix_edge(), Some(edge));
}

/// A fault in the text of a kernel for matrix units: what is there, and what is put there.
type Fault = (Kernel, fn(&str) -> String);

fn planted(text: &str, from: &str, to: &str) -> String {
    let planted = text.replace(from, to);
    assert_ne!(planted, text, "the fault is planted");
    planted
}

const FAULTS: [Fault; 10] = [
    // k in the order of v, and the other way round.
    (Kernel::FusedForwardMatrix, |x| {
        planted(x, "coopLoad<MatrixB>(&sh_k16", "coopLoadT<MatrixB>(&sh_k16")
    }),
    (Kernel::FusedForwardMatrix, |x| {
        planted(x, "coopLoadT<MatrixB>(&sh_v16", "coopLoad<MatrixB>(&sh_v16")
    }),
    // o is not scaled when a peak has grown; or with a neighbour's factor.
    (Kernel::FusedForwardMatrix, |x| planted(x, "select(0u, 1u, exact || grown)", "0u")),
    (Kernel::FusedForwardMatrix, |x| {
        planted(x, "Turn(sh_old[work.place]", "Turn(sh_old[(work.place + 1u) % ROWS]")
    }),
    // The sum of weights is not scaled.
    (Kernel::FusedForwardMatrix, |x| planted(x, "state.l = seen.l * old;", "")),
    // Every workgroup has the first one's rows.
    (Kernel::FusedForwardMatrix, |x| planted(x, "+ (groups - 1u - workgroup.x) * ROWS;", ";")),
    // Every team has the first one's rows.
    (Kernel::FusedForwardMatrix, |x| {
        planted(x, "lane / TEAM * TEAM_ROWS, key_range", "0u, key_range")
    }),
    // Keys past the last count.
    (Kernel::FusedForwardMatrix, |x| {
        planted(x, "let tested = key0 < whole.x || key0 + KEYS > whole.y;", "let tested = false;")
    }),
    (Kernel::StagedScore, |x| planted(x, "coopLoad<MatrixB>", "coopLoadT<MatrixB>")),
    (Kernel::StagedValue, |x| planted(x, "/ A_UNIT;", ";")),
];

#[test]
fn the_self_test_refuses_wrong_kernels_and_another_path_serves() {
    let Some(first) = matrix_engine("the_self_test_refuses") else { return };
    let call = half(24).causal(Align::BottomRight).with_lse();
    let path = |kernel| match kernel {
        Kernel::FusedForwardMatrix => Path::FusedMatrix,
        _ => Path::StagedMatrix,
    };
    for path in [Path::FusedMatrix, Path::StagedMatrix] {
        assert_eq!(first.plan_with(&call, &asked(path)).unwrap().path(), path, "right as it is");
    }
    for (i, (kernel, fault)) in FAULTS.into_iter().enumerate() {
        let engine = matrix_engine("the_self_test_refuses").unwrap();
        engine.plant(kernel, fault);
        let error = engine.plan_with(&call, &asked(path(kernel))).expect_err(&format!("fault {i}"));
        assert!(error.to_string().contains("wrong in the self-test"), "fault {i}: {error}");
        // Where the path is left open, plain kernels serve and say why.
        let opted = Policy { matrix_units: true, ..Policy::default() };
        let plan = engine.plan_with(&call, &opted).unwrap();
        if kernel == Kernel::FusedForwardMatrix {
            assert!(!plan.path().is_matrix() && plan.to_string().contains("self-test"), "{plan}");
        }
    }
}

#[test]
fn projections_on_matrix_units_are_those_of_the_layer_and_prove_themselves() {
    let Some(engine) = matrix_engine("projections_on_matrix_units") else { return };
    let layer = MultiHeadAttention::new(Attention::new(Shape::self_attention(2, 3, 33, 8)), 37);
    let values = |salt: u64, n: usize| -> Vec<f64> {
        let hash = |i: u64| (i + 1 + (salt << 20)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        (0..n as u64).map(|i| hash(i) as f64 / f64::from(1 << 23) - 1.0).collect()
    };
    let weights = HostWeights {
        w_q: values(1, 24 * 37),
        w_k: values(2, 24 * 37),
        w_v: values(3, 24 * 37),
        w_o: values(4, 37 * 24),
        b_q: values(5, 24),
        ..HostWeights::default()
    };
    let x = values(6, 2 * 33 * 37);
    let operands = Default::default();
    let inputs = LayerInputs { x_q: &x, x_k: &x, x_v: &x, operands, weights: &weights };
    let wanted = layer.reference(&inputs).unwrap().out;
    let opted = Policy { matrix_units: true, ..Policy::default() };
    let plan = engine.plan_layer(&layer, &opted).unwrap();
    assert!(plan.projections.is_some());
    let found = engine.run_layer_host(&plan, &inputs).unwrap().out;
    // Operands rounded to f16, twice over: 2^-11 of sums of 37 and 24 products of magnitude 1.
    for (i, (x, e)) in found.iter().zip(&wanted).enumerate() {
        assert!((x - e).abs() < 0.05, "out[{i}] is {x}, want {e}");
    }
    let plain =
        engine.run_layer_host(&engine.plan_layer(&layer, &Policy::default()).unwrap(), &inputs);
    assert_ne!(plain.unwrap().out, found, "the plain layer rounds less");

    let engine = matrix_engine("projections_on_matrix_units").unwrap();
    engine.plant(Kernel::Project, |text| {
        if !text.contains("coopLoad") {
            return text.to_owned();
        }
        planted(text, "coopLoad<MatrixB>", "coopLoadT<MatrixB>")
    });
    let plan = engine.plan_layer(&layer, &opted).unwrap();
    assert_eq!(plan.projections, None);
    assert!(plan.rejection.unwrap().reason.contains("wrong in the self-test"));
}

/// The shapes that hardware gets, which a driver with subgroups of 8 would not: steps written out, several blocks of
/// rows to a team, several subgroups in a team, several invocations to a row.
#[test]
fn every_shape_of_the_tile_computes_the_same_attention() {
    let Some(engine) = matrix_engine("every_shape_of_the_tile") else { return };
    let edge = engine.capabilities().matrix_edge().unwrap();
    let own = engine.capabilities().subgroup_size[1];
    // team, teams, blocks, keys, written out
    let shapes = [
        (own, 2, 1, 2 * edge, true),
        (own, 1, 1, edge, true),
        (2 * own, 1, 2, 2 * edge, true),
        (2 * own, 2, 1, 2 * edge, false),
        (4 * own, 1, 2, edge, false),
    ];
    for (team, teams, blocks, keys, unrolled) in shapes {
        let caps = Capabilities { subgroup_size: [own, team], ..engine.capabilities().clone() };
        let (device, queue) = (engine.device().clone(), engine.queue().clone());
        let engine = Engine::from_wgpu(device, queue).with_capabilities(caps);
        let row = tuning::MatrixRow {
            class: tuning::Class::Any,
            device: "".into(),
            edge,
            max_dim: 512,
            teams,
            blocks,
            keys,
            unrolled,
        };
        let tuning = Tuning { matrix: vec![row], ..Tuning::default() };
        let policy = Policy { tuning: Some(tuning.into()), ..asked(Path::FusedMatrix) };
        for [dim_qk, dim_v] in [[20, 9], [7, 24]] {
            let shape = Shape { seq_q: 37, seq_kv: 45, dim_qk, dim_v, ..half(8).shape };
            let call =
                Attention::new(shape).dtype(DType::F16).causal(Align::BottomRight).with_lse();
            let case = Case::new(call, Default::default());
            let (problem, data) = case.generate().unwrap();
            let truth = Truth::measure_on_matrix_units(&problem, &data.inputs()).unwrap();
            // Planning runs the self-test, whose peaks grow from tile to tile.
            let plan = engine.plan_with(&case.attention, &policy).unwrap();
            let found = engine.run_host(&plan, &data.inputs()).unwrap();
            for (operand, comparison) in truth.check(&problem, &found) {
                assert!(comparison.pass, "{plan}\n{operand}: {}", comparison.message());
            }
        }
        // Projections and the staged path have the same teams.
        let staged = engine.plan_with(&half(24), &asked(Path::StagedMatrix)).unwrap();
        assert_eq!(staged.kernels()[0].matrix_tile().unwrap().team, team);
    }
}

/// llvmpipe runs matrices of 16 as well, though it lists those of 8 only: the one place without a GPU where those
/// kernels run.
fn engine_with_matrices_of_16(test: &str) -> Option<Engine> {
    let engine = matrix_engine(test)?;
    let caps = engine.capabilities().clone();
    if caps.matrix_edge() == Some(16) {
        return Some(engine);
    }
    if !caps.name.starts_with("llvmpipe") {
        skip::unsupported(test, format!("{} has no matrices of 16", caps.name));
        return None;
    }
    let (operands, sums) = (DType::F16, DType::F32);
    let matrix_units = vec![MatrixUnit { size: [16; 3], operands, sums }];
    // Two of its subgroups of 8 do the same.
    Some(engine.with_capabilities(Capabilities { matrix_units, subgroup_size: [8, 16], ..caps }))
}

/// A tile of 128 rows, as hardware gets, makes the self-test's call larger; every table of it must fit.
#[test]
fn the_self_test_accepts_right_kernels_with_tiles_of_128_rows() {
    let Some(engine) = matrix_engine("tiles_of_128_rows") else { return };
    let caps = engine.capabilities();
    let edge = caps.matrix_edge().unwrap();
    let row = tuning::MatrixRow {
        class: tuning::Class::Any,
        device: "".into(),
        edge,
        max_dim: 512,
        teams: 128 / edge,
        blocks: 1,
        keys: 32,
        unrolled: false,
    };
    if caps.subgroup_size[1] * row.teams > caps.max_invocations {
        let why = "one block of rows to a team takes too many invocations";
        return skip::unsupported("tiles_of_128_rows", why);
    }
    let tuning = Tuning { matrix: vec![row], ..Tuning::default() };
    let policy = Policy { tuning: Some(tuning.into()), ..asked(Path::FusedMatrix) };
    let shape = Shape::self_attention(2, 4, 300, 16);
    let call = || Attention::new(shape).dtype(DType::F16).with_lse();
    let grid = Neighborhood([Axis::new(1, 1), Axis::new(1, 1), Axis::new(300, 5)]);
    for call in [
        call().causal(Align::BottomRight),
        call().kv_lengths().q_lengths().sinks(),
        call().segments(),
        call().packed(500, 500).causal(Align::TopLeft),
        call().rotary(Rotary { ids: true, ..Rotary::new(16, 400) }),
        call().edges(Edges { count: 900, bias: true }),
        call().blocks(Blocks::new(32, 16)),
        call().mask([2, 1, 300, 300]),
        call().kv_lengths().paged(60, 12, 26),
        call().local_gaussian(9.0),
        call().neighborhood(grid),
    ] {
        let plan = engine.plan_with(&call, &policy).unwrap();
        assert_eq!(plan.kernels().last().unwrap().matrix_tile().unwrap().rows(), 128, "{plan}");
    }
}

// Two tests, so that two cores compile.
#[test]
fn a_quarter_of_the_matrix_grid_matches_the_reference() {
    let test = "a quarter of the matrix grid";
    let Some(engine) = matrix_engine(test) else { return };
    matches_the_reference(test, &engine, |i| i % 4 == 1);
}

#[test]
fn an_eighth_of_the_matrix_grid_matches_the_reference_in_matrices_of_16() {
    let test = "an eighth of the matrix grid";
    let Some(engine) = engine_with_matrices_of_16(test) else { return };
    // They take longer to compile there.
    matches_the_reference(test, &engine, |i| i % 8 == 3);
}

/// The wanted cases, each on one of the two paths; every third at odd offsets. `heedful verify --grid matrix` runs all
/// on both.
fn matches_the_reference(test: &str, engine: &Engine, wanted: fn(usize) -> bool) {
    let (mut passed, mut unsupported, mut failures) = (0, 0, Vec::new());
    for (i, case) in grid(Grid::Matrix).unwrap().iter().enumerate().filter(|(i, _)| wanted(*i)) {
        let (problem, data) = case.generate().expect("a case of the catalogue is valid");
        let path = if i % 7 < 5 { Path::FusedMatrix } else { Path::StagedMatrix };
        let off = Policy { self_test: SelfTest::Off, ..asked(path) };
        if engine.plan_with(&case.attention, &off).is_err() {
            unsupported += 1;
            continue;
        }
        let truth = Truth::measure_on_matrix_units(&problem, &data.inputs()).expect("served");
        let placement = if i % 3 == 0 { Placement::Odd } else { Placement::Aligned };
        match outcome(engine, case, path, placement, &truth) {
            None => passed += 1,
            Some(why) => failures.push(format!("{path} {}: {why}", case.name)),
        }
    }
    if unsupported > 0 {
        skip::unsupported(test, format!("{unsupported} of {} cases", unsupported + passed));
    }
    println!("{passed} passed, {} failed", failures.len());
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    assert!(passed > 50, "only {passed} cases ran");
}

/// What is wrong with a case on a path, if anything.
fn outcome(
    engine: &Engine,
    case: &Case,
    path: Path,
    placement: Placement,
    truth: &Truth,
) -> Option<String> {
    let (problem, data) = case.generate().expect("a valid case");
    let mut o = Vec::new();
    let ran = run(engine, &case.attention, path, &data.inputs(), placement, |x| {
        o.clone_from(&x.outputs.o);
        truth.check(&problem, &x.outputs)
    });
    match ran.unwrap_or_else(|e| panic!("{}: {e}", case.name)) {
        Outcome::Unsupported(reason) => Some(reason),
        Outcome::Ran(ran) => ran.failure().or_else(|| {
            differs_alone(engine, &case.attention, &data, path, placement, &o)
                .unwrap_or_else(|e| panic!("{}: {e}", case.name))
        }),
    }
}
