//! Gradients on the GPU: against recorded ones and the reference, and as applications bind them.

#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;

use common::noise::noise;
use heedful::device::Readback;
use heedful::reference::{Gradients, Incoming};
use heedful::verify::cases::{BackwardCase, Case, Grid, backward_grid, draw_incoming};
use heedful::verify::data::{CaseData, DataOptions};
use heedful::verify::execute::Placement;
use heedful::verify::golden::{GoldenSuite, Precision};
use heedful::verify::gradients::GradientTruth;
use heedful::verify::run::Outcome;
use heedful::verify::run_backward::Trial;
use heedful::{
    Align, Attention, Backward, BackwardPlan, BackwardTensors, BufferView, DType, Engine, Layout,
    Operand, Path, Policy, Rotary, Shape, Tensors,
};

#[test]
fn gpu_gradients_match_recorded_ones() {
    let Some(engine) = common::gpu::engine("gpu_gradients_match_recorded_ones") else { return };
    let (mut compared, mut wrong) = ([0, 0, 0], Vec::new());
    for suite in ["jax", "varlen", "real", "forms"] {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(suite);
        for case in GoldenSuite::open(&folder).unwrap().cases {
            let Some(recorded) = case.gradients(Precision::Stored).unwrap() else { continue };
            for (path, compared) in BackwardPlan::PATHS.into_iter().zip(&mut compared) {
                let policy = Policy { path, ..Policy::default() };
                let plan = match engine.plan_backward_with(&recorded.backward, &policy) {
                    Err(error) if path != Path::Staged && error.is_unsupported() => continue,
                    plan => plan.unwrap(),
                };
                let inputs = recorded.loaded.data.inputs();
                let found = engine.run_backward_host(&plan, &inputs, &recorded.incoming()).unwrap();
                for (operand, comparison) in recorded.check(&found) {
                    *compared += 1;
                    if !comparison.pass {
                        let what = format!("{} {path} d_{operand}", case.name);
                        wrong.push(format!("{what}: {}", comparison.message()));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {compared:?} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(compared, [257, 260, 645]);
}

// Two halves, so that two cores compile.
#[test]
fn gpu_gradients_of_the_first_half_of_the_quick_grid_are_those_of_the_reference() {
    gradients_are_those_of_the_reference("first half of the gradients", |i, n| i < n / 2);
}

#[test]
fn gpu_gradients_of_the_second_half_of_the_quick_grid_are_those_of_the_reference() {
    gradients_are_those_of_the_reference("second half of the gradients", |i, n| i >= n / 2);
}

fn gradients_are_those_of_the_reference(test: &str, wanted: fn(usize, usize) -> bool) {
    let Some(engine) = common::gpu::engine(test) else { return };
    let mut found = Found::default();
    let cases = backward_grid(Grid::Quick).unwrap();
    for (i, case) in cases.iter().enumerate().filter(|(i, _)| wanted(*i, cases.len())) {
        found.compare(&engine, case, i);
    }
    let Found { passed, wrong, unsupported, in_blocks } = found;
    if let Some(why) = unsupported.first() {
        let what = format!("{} of {} cases, the first: {why}", unsupported.len(), cases.len());
        common::skip::unsupported(test, what);
    }
    println!("{passed:?}, {in_blocks} in several blocks of rows");
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(passed["q"] > 30 && passed["bias"] > 3 && passed["sinks"] > 1, "{passed:?}");
    assert!(in_blocks > 5, "{in_blocks} calls in several blocks of rows");
}

/// Gradients on the GPU beside those of the reference.
#[derive(Default)]
struct Found {
    passed: BTreeMap<&'static str, usize>,
    wrong: Vec<String>,
    unsupported: Vec<String>,
    in_blocks: u32,
}

impl Found {
    /// All gradients of a case, each third one at odd offsets.
    fn compare(&mut self, engine: &Engine, case: &BackwardCase, i: usize) {
        let trial = match Trial::new(case) {
            Ok(trial) => trial,
            Err(error) => return self.unsupported.push(error.to_string()),
        };
        let placement = if i.is_multiple_of(3) { Placement::Odd } else { Placement::Aligned };
        match trial.run(engine, placement).unwrap_or_else(|e| panic!("{}: {e}", case.name)) {
            (Outcome::Unsupported(why), _) => self.unsupported.push(why),
            (Outcome::Ran(ran), differs) => match ran.failure().or(differs) {
                None => {
                    let plan = engine.plan_backward_with(&case.backward, &case.policy()).unwrap();
                    let rows = case.backward.attention.shape.seq_q;
                    self.in_blocks += u32::from(plan.block().rows < rows);
                    for (operand, _) in &ran.comparisons {
                        *self.passed.entry(operand.name()).or_insert(0) += 1;
                    }
                }
                Some(why) => self.wrong.push(format!("{}: {why}", case.name)),
            },
        }
    }
}

/// A learned tensor's gradient that is wanted alone has the same bits as among all.
fn learned_alone_have_the_same_bits(engine: &Engine, case: &BackwardCase) {
    let (_, data, incoming) = case.generate().unwrap();
    let run = |backward: &Backward| {
        let plan = engine.plan_backward_with(backward, &case.policy()).unwrap();
        engine.run_backward_host(&plan, &data.inputs(), &incoming.incoming()).unwrap()
    };
    let all = run(&case.backward);
    for operand in [Operand::HeadScale, Operand::ScoreMatrix, Operand::ScoreV] {
        if let Some(found) = all.get(operand) {
            let alone = run(&case.backward.clone().only(&[operand]));
            assert_eq!(alone.get(operand).unwrap(), found, "{} d_{operand} alone", case.name);
        }
    }
}

#[test]
fn gpu_gradients_go_back_through_rotations_norms_matrices_and_sums() {
    let Some(engine) = common::gpu::engine("gpu_gradients_go_back") else { return };
    // 70 rows and keys, more than a tile and no multiple of it; two heads share a key head.
    let shape = Shape { heads_kv: 2, ..Shape::self_attention(2, 4, 70, 12) };
    let odd = Shape { dim_qk: 7, ..shape };
    let call = |shape| Attention { kv_lengths: true, q_lengths: true, ..Attention::new(shape) };
    let turned = Rotary::new(8, 80);
    let interleaved = Rotary { interleaved: true, ..Rotary::new(6, 200) };
    let calls = [
        call(shape).rotary(Rotary { at_end: true, ..turned }),
        call(odd).rotary(Rotary { keys_from: 9, q_start: 3, k_start: 5, ..interleaved }),
        call(shape).rotary(Rotary { ids: true, ..turned }).dtype(DType::F16),
        call(odd).cosine_scaled(1e-6).dtype(DType::Bf16).layout(Layout::Bshd),
        call(shape).cosine_scaled(1e-6).rotary(interleaved),
        // All rows are shorter than eps.
        call(shape).cosine(1e3),
        call(odd).general(20).layout(Layout::Bshd),
        call(shape).general(9).rotary(interleaved).causal(Align::TopLeft),
        call(shape).general(16).rotary(turned).dtype(DType::F16),
        call(odd).additive(0.5).layout(Layout::Bshd),
        call(shape).additive_leaky(0.2).rotary(turned).dtype(DType::F16).causal(Align::TopLeft),
    ];
    let mut found = Found::default();
    for (i, call) in calls.into_iter().enumerate() {
        // What padded rows hold meets no sum.
        let data = DataOptions { poison: true, ..DataOptions::USUAL };
        let case = BackwardCase::of(&Case::new(call, data)).unwrap();
        let path = if i % 2 == 0 { Path::Staged } else { Path::Auto };
        let case = BackwardCase { in_blocks: i % 2 == 0, path, ..case };
        found.compare(&engine, &case, i);
        learned_alone_have_the_same_bits(&engine, &case);
    }
    let Found { passed, wrong, unsupported, in_blocks } = found;
    assert!(unsupported.is_empty(), "{unsupported:?}");
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!([passed["q"], passed["head_scale"], passed["score_matrix"]], [11, 2, 3]);
    assert_eq!(passed["score_v"], 2);
    assert!(in_blocks > 3, "{in_blocks} calls in several blocks of rows");
}

#[test]
fn fused_gradients_that_are_wanted_alone_have_the_same_bits() {
    let Some(engine) = common::gpu::engine("fused_gradients_alone") else { return };
    let shape = Shape { heads_kv: 2, ..Shape::self_attention(2, 4, 70, 12) };
    let call = Attention::new(shape).causal(Align::TopLeft).with_lse();
    let all = Backward::of(call);
    let case = Case::new(all.attention.clone(), Default::default());
    let (_, data, incoming) = BackwardCase::of(&case).unwrap().generate().unwrap();
    let incoming = Incoming { lse: &[], ..incoming.incoming() };
    for path in [Path::Fused, Path::FusedTile] {
        let policy = Policy { path, ..Policy::default() };
        let run = |backward: &Backward| {
            let plan = engine.plan_backward_with(backward, &policy).unwrap();
            engine.run_backward_host(&plan, &data.inputs(), &incoming).unwrap()
        };
        let found = run(&all);
        for wanted in
            [vec![Operand::Q], vec![Operand::K], vec![Operand::V], vec![Operand::Q, Operand::V]]
        {
            let alone = run(&all.clone().only(&wanted));
            for operand in wanted {
                assert_eq!(alone.get(operand), found.get(operand), "d_{operand} alone, {path}");
            }
        }
    }
}

/// Keys past their length take nothing from rows, whatever these hold, also where no mask has kernels look for that.
#[test]
fn gradients_of_keys_past_their_length_are_0_beside_infinite_ones() {
    let Some(engine) = common::gpu::engine("gradients_of_keys_past_their_length") else { return };
    let call = Attention::new(Shape { seq_kv: 90, ..Shape::self_attention(1, 1, 8, 16) });
    let backward = Backward::of(call.kv_lengths().with_lse());
    let problem = backward.validate().unwrap();
    let mut data = CaseData::generate(problem.problem(), 7, &DataOptions::default());
    data.kv_lengths = vec![70];
    let mut d_o = draw_incoming(&problem, 8).o;
    d_o[0] = f64::INFINITY;
    let incoming = Incoming { o: &d_o, ..Incoming::default() };
    for path in BackwardPlan::PATHS {
        let policy = Policy { path, ..Policy::default() };
        let plan = engine.plan_backward_with(&backward, &policy).unwrap();
        let found = engine.run_backward_host(&plan, &data.inputs(), &incoming).unwrap();
        for operand in [Operand::K, Operand::V] {
            let d = found.get(operand).unwrap();
            assert!(d[..70 * 16].iter().any(|x| !x.is_finite()), "d_{operand}, {path}");
            assert!(d[70 * 16..].iter().all(|x| *x == 0.0), "d_{operand}, {path}");
        }
    }
}

/// Tensors of n numbers in one buffer, at multiples of 256 bytes.
struct Arena {
    buffer: wgpu::Buffer,
    n: usize,
    step: u64,
}

impl Arena {
    /// Room for `places` tensors, the first of them filled.
    fn new(engine: &Engine, places: u64, filled: &[&[f64]]) -> Self {
        let n = filled[0].len();
        let step = (4 * n as u64).next_multiple_of(256);
        let buffer = engine.device().create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: places * step,
            usage: wgpu::BufferUsages::STORAGE
                | wgpu::BufferUsages::COPY_SRC
                | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        for (i, values) in filled.iter().enumerate() {
            let floats = DType::F32.encode(values.iter().copied());
            engine.queue().write_buffer(&buffer, i as u64 * step, &floats);
        }
        Self { buffer, n, step }
    }

    fn at(&self, i: u64) -> BufferView<'_> {
        BufferView { buffer: &self.buffer, offset: i * self.step }
    }

    /// Submits, and holds the gradients in their places against those in buffers of their own.
    fn submit_and_compare(
        &self,
        engine: &Engine,
        mut encoder: wgpu::CommandEncoder,
        apart: &Gradients,
        places: &[(Operand, u64)],
    ) {
        let size = self.buffer.size();
        let back = Readback::record(engine.device(), &mut encoder, &self.buffer, 0, size).unwrap();
        engine.queue().submit([encoder.finish()]);
        let found = DType::F32.decode(&back.read_blocking().unwrap());
        for (operand, i) in places {
            let start = (i * self.step / 4) as usize;
            assert_eq!(found[start..start + self.n], *apart.get(*operand).unwrap(), "{operand}");
        }
    }
}

/// The forward pass and its gradients in one encoder, every tensor in one buffer.
#[test]
fn a_step_of_training_in_one_buffer() {
    let Some(engine) = common::gpu::engine("a_step_of_training") else { return };
    let shape = Shape::self_attention(1, 2, 37, 12);
    let backward = Backward::of(Attention::new(shape).causal(Align::TopLeft).with_lse());
    let policy = Policy { path: Path::Fused, ..Policy::default() };
    let plan = engine.plan_backward_with(&backward, &policy).unwrap();
    let forward = engine.plan(&backward.attention).unwrap();
    let n = shape.elements()[0] as usize;
    let data = CaseData { q: noise(n, 1), k: noise(n, 2), v: noise(n, 3), ..CaseData::default() };
    let d_o = noise(n, 4);
    let arena = Arena::new(&engine, 9, &[&data.q, &data.k, &data.v, &d_o]);
    let at = |i| arena.at(i);
    let tensors = || {
        let mut tensors = Tensors::new(at(0), at(1), at(2), at(4));
        tensors.lse = Some(at(5));
        tensors
    };
    let wanted = [(Operand::Q, 6), (Operand::K, 7), (Operand::V, 8)];
    let all = BackwardTensors::new(tensors(), at(3));
    let all = wanted.iter().fold(all, |all, (of, i)| all.with(*of, at(*i)));
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    engine.bind(&forward, &tensors()).unwrap().encode(&mut encoder);
    engine.bind_backward(&plan, &all).unwrap().encode(&mut encoder);
    let incoming = Incoming { o: &d_o, ..Incoming::default() };
    let apart = engine.run_backward_host(&plan, &data.inputs(), &incoming).unwrap();
    let problem = backward.validate().unwrap();
    let truth = GradientTruth::measure(&problem, &data.inputs(), &incoming).unwrap();
    assert!(truth.check(&apart).iter().all(|(_, x)| x.pass));
    arena.submit_and_compare(&engine, encoder, &apart, &wanted);
}

#[test]
fn gradients_in_one_buffer_and_what_binding_refuses() {
    let Some(engine) = common::gpu::engine("gradients_in_one_buffer") else { return };
    let shape = Shape::self_attention(1, 2, 5, 8);
    let backward = Backward::of(Attention::new(shape));
    let plan = engine.plan_backward(&backward).unwrap();
    let n = shape.elements()[0] as usize;
    let data = CaseData { q: noise(n, 1), k: noise(n, 2), v: noise(n, 3), ..CaseData::default() };
    let d_o = noise(n, 4);
    let arena = Arena::new(&engine, 8, &[&data.q, &data.k, &data.v, &d_o]);
    let at = |i| arena.at(i);
    let tensors = || BackwardTensors::new(Tensors::new(at(0), at(1), at(2), at(4)), at(3));
    let wanted = [(Operand::Q, 5), (Operand::K, 6), (Operand::V, 7)];
    let all = wanted.iter().fold(tensors(), |tensors, (of, i)| tensors.with(*of, at(*i)));
    let bound = engine.bind_backward(&plan, &all).unwrap();
    assert!(bound.to_string().contains("backward_keys"), "{bound}");
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    bound.encode(&mut encoder);
    let incoming = Incoming { o: &d_o, ..Incoming::default() };
    let apart = engine.run_backward_host(&plan, &data.inputs(), &incoming).unwrap();
    arena.submit_and_compare(&engine, encoder, &apart, &wanted);

    let refused = |tensors: BackwardTensors<'_>, words: &[&str]| {
        let error = engine.bind_backward(&plan, &tensors).unwrap_err();
        assert!(error.is_invalid(), "{error}");
        words.iter().for_each(|word| assert!(error.to_string().contains(word), "{error}"));
    };
    let [q, k, v] = [Operand::Q, Operand::K, Operand::V];
    refused(tensors().with(q, at(5)).with(k, at(6)), &["gradient of v", "none"]);
    refused(all.clone().with(Operand::Bias, at(4)), &["gradient of bias"]);
    refused(tensors().with(q, at(5)).with(k, at(6)).with(v, at(2)), &["gradient of v", "bytes"]);
    refused(tensors().with(q, at(5)).with(k, at(5)).with(v, at(7)), &["gradient of k", "bytes"]);
    refused(all.clone().d_lse(at(4)), &["d_lse", "does not ask"]);
    refused(all.clone().with(q, at(4)), &["gradient of q", "2 tensors"]);
    let beyond = BufferView { buffer: &arena.buffer, offset: 8 * arena.step - 4 };
    refused(tensors().with(q, at(5)).with(k, at(6)).with(v, beyond), &["gradient of v", "size"]);
}
