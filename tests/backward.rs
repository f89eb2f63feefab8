//! Gradients: the float64 reference against recorded ones and against central differences; the GPU against recorded
//! ones and the reference.

#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;

use heedful::device::Readback;
use heedful::reference::{Incoming, Order, Outputs, attend, backward, emulate_backward};
use heedful::verify::cases::{BackwardCase, Case, CaseIncoming, Grid, backward_grid, grid};
use heedful::verify::data::{CaseData, DataOptions};
use heedful::verify::execute::Placement;
use heedful::verify::golden::{GoldenSuite, Precision};
use heedful::verify::gradients::GradientTruth;
use heedful::verify::run::Outcome;
use heedful::verify::run_backward::Trial;
use heedful::{
    Align, Attention, Backward, BackwardPlan, BackwardProblem, BackwardTensors, BufferView,
    Capabilities, CustomScore, DType, Engine, Layout, Normalizer, Operand, Path, Policy, Rotary,
    Shape, Tensors, WeightsAt,
};

#[test]
fn reference_gradients_match_recorded_ones() {
    let (mut run, mut compared, mut wrong) = (0, 0, Vec::new());
    // As for the outputs: biases and scales of the other forms are held in f32.
    let precisions = [
        ("jax", Precision::Double),
        ("varlen", Precision::Double),
        ("real", Precision::Double),
        ("forms", Precision::Stored),
    ];
    for (suite, precision) in precisions {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(suite);
        for case in GoldenSuite::open(&folder).unwrap().cases {
            let Some(recorded) = case.gradients(precision).unwrap() else { continue };
            let problem = recorded.backward.validate().unwrap();
            let inputs = recorded.loaded.data.inputs();
            let found = backward(&problem, &inputs, &recorded.incoming()).unwrap();
            run += 1;
            for (operand, comparison) in recorded.check(&found) {
                compared += 1;
                if !comparison.pass {
                    wrong.push(format!("{} d_{operand}: {}", case.name, comparison.message()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {compared} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!((run, compared), (181, 645));
}

/// Numbers in -1..1 that differ from place to place.
fn noise(n: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(2).wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// What gradients are of: <d_o, o> + <d_lse, lse> + <d_weights, weights>, over rows that see something; and the sum of
/// the terms' magnitudes.
fn loss(outputs: &Outputs, incoming: &Incoming<'_>) -> [f64; 2] {
    let weights = outputs.weights.as_deref().unwrap_or_default();
    let o = outputs.o.iter().zip(incoming.o);
    let lse = outputs.lse.iter().zip(incoming.lse).filter(|(lse, _)| lse.is_finite());
    let terms = o.chain(lse).chain(weights.iter().zip(incoming.weights)).map(|(x, d)| x * d);
    terms.fold([0.0, 0.0], |[sum, size], term| [sum + term, size + term.abs()])
}

/// A call with its gradients of everything, and what comes in.
struct Call {
    problem: BackwardProblem,
    data: CaseData,
    incoming: CaseIncoming,
}

impl Call {
    /// Calls that have no gradients say why.
    fn new(case: &Case) -> Result<Self, String> {
        let generated = BackwardCase::of(case).unwrap().generate();
        let (problem, data, mut incoming) = generated.map_err(|e| e.to_string())?;
        // The NaN of what nothing passes on would be in the loss.
        let parts = [&mut incoming.o, &mut incoming.lse, &mut incoming.weights];
        parts.into_iter().flatten().filter(|x| x.is_nan()).for_each(|x| *x = 0.0);
        Ok(Self { problem, data, incoming })
    }

    fn incoming(&self) -> Incoming<'_> {
        self.incoming.incoming()
    }

    /// The derivative of the loss along `direction` in one tensor, by central differences, and what rounding makes of
    /// it.
    fn difference(&self, operand: Operand, direction: &[f64]) -> [f64; 2] {
        let step = 1e-5;
        let at = |sign: f64| {
            let mut data = self.data.clone();
            let values = data.floats_mut(operand).unwrap();
            for (x, d) in values.iter_mut().zip(direction) {
                *x += sign * step * d;
            }
            loss(&attend(self.problem.problem(), &data.inputs()).unwrap(), &self.incoming())
        };
        let ([above, size], [below, _]) = (at(1.0), at(-1.0));
        [(above - below) / (2.0 * step), size * f64::EPSILON / step]
    }
}

/// The gradient of a tensor where its elements lie in the caller's tensor.
fn laid_out(trial: &Call, operand: Operand, gradient: &[f64]) -> Vec<f64> {
    let problem = trial.problem.problem();
    let s = problem.attention().shape;
    let elements = problem.elements(operand).unwrap() as usize;
    let (heads, rows) = match operand {
        Operand::Q => (s.heads_q, s.seq_q),
        Operand::K | Operand::V => (s.heads_kv, s.seq_kv),
        _ => return gradient.to_vec(),
    };
    let dim = problem.dim(operand) as usize;
    let mut laid = vec![0.0; elements];
    let places = (0..s.batch)
        .flat_map(|b| (0..heads).flat_map(move |h| (0..rows).map(move |row| [b, h, row])));
    for (at, row) in places.zip(gradient.chunks(dim)) {
        let start = problem.index(operand, at, &trial.data.operands()) as usize;
        for (to, d) in laid.iter_mut().skip(start).zip(row) {
            *to += d;
        }
    }
    laid
}

#[test]
fn reference_gradients_are_central_differences_in_every_case_of_the_grid() {
    let (mut checked, mut wrong) = (BTreeMap::new(), Vec::new());
    let mut refused: BTreeMap<String, u32> = BTreeMap::new();
    for case in grid(Grid::Quick).unwrap() {
        let trial = match Call::new(&case) {
            Ok(trial) => trial,
            Err(why) => {
                *refused.entry(why).or_default() += 1;
                continue;
            }
        };
        let inputs = trial.data.inputs();
        let found = backward(&trial.problem, &inputs, &trial.incoming()).unwrap();
        let a = trial.problem.problem().attention();
        let leaky = case.name.contains("leaky");
        // Sums of values in 16 bits meet the kink itself, where a central difference is the mean of both slopes.
        let at_kinks = leaky && a.dtype != DType::F32;
        for (operand, gradient) in found.iter() {
            if at_kinks && matches!(operand, Operand::Q | Operand::K) {
                continue;
            }
            let gradient = laid_out(&trial, operand, gradient);
            let direction = noise(gradient.len(), case.seed ^ 3);
            let along: f64 = gradient.iter().zip(&direction).map(|(g, d)| g * d).sum();
            let [difference, rounding] = trial.difference(operand, &direction);
            let size: f64 = gradient.iter().zip(&direction).map(|(g, d)| (g * d).abs()).sum();
            // NaN and infinities by data, and logits near the end of float32's range, have no differences.
            if !difference.is_finite() || rounding > 1e-3 * size + 1e-7 {
                continue;
            }
            *checked.entry(operand.name()).or_insert(0) += 1;
            if (along - difference).abs() > 1e-5 * size + rounding + 1e-7 {
                wrong.push(format!("{} d_{operand}: {along} against {difference}", case.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    // Every tensor that has a gradient is in some case; hard choices, pages, quantised and repeated keys have none.
    assert_eq!(checked.len(), 12, "{checked:?}");
    assert!(checked.values().all(|n| *n > 1) && checked["q"] > 350, "{checked:?}");
    assert_eq!(refused.values().sum::<u32>(), 171, "{refused:?}");
}

#[test]
fn a_score_of_the_callers_own_needs_a_derivative() {
    let shape = Shape { heads_kv: 1, ..Shape::self_attention(1, 2, 9, 5) };
    let square = CustomScore::new(
        "square",
        "fn score_square(s: f32, p: Position) -> f32 { return s * s + f32(p.key); }",
        |s, at| s * s + f64::from(at.key),
    );
    let without = Attention { custom_scores: vec![square.clone()], ..Attention::new(shape) };
    let error = Backward::of(without).validate().unwrap_err();
    assert!(error.is_invalid());
    assert!(error.to_string().contains("square") && error.to_string().contains("derivative"));

    let wgsl = "fn score_square_derivative(s: f32, p: Position) -> f32 { return 2.0 * s; }";
    let with = square.clone().with_derivative(wgsl, |s, _| 2.0 * s);
    assert_ne!(with, square);
    let attention = Attention { custom_scores: vec![with], ..Attention::new(shape) };
    let trial = Call::new(&Case::new(attention, Default::default())).unwrap();
    let found = backward(&trial.problem, &trial.data.inputs(), &trial.incoming()).unwrap();
    for (operand, gradient) in found.iter() {
        let gradient = laid_out(&trial, operand, gradient);
        let direction = noise(gradient.len(), 5);
        let along: f64 = gradient.iter().zip(&direction).map(|(g, d)| g * d).sum();
        let [difference, _] = trial.difference(operand, &direction);
        assert!((along - difference).abs() < 1e-6, "d_{operand}: {along} against {difference}");
    }
}

#[test]
fn gradients_that_a_call_cannot_have_are_refused_by_name() {
    let call = || Attention::new(Shape::self_attention(1, 2, 9, 5));
    let refused = |backward: Backward, words: &[&str]| {
        let error = backward.validate().unwrap_err();
        assert!(error.is_invalid(), "{error}");
        words.iter().for_each(|word| assert!(error.to_string().contains(word), "{error}"));
    };
    refused(Backward::of(call()).with(Operand::Bias), &["gradient of bias", "a call without it"]);
    refused(Backward::of(call()).with(Operand::KvLengths), &["gradient of kv_lengths"]);
    refused(Backward::of(call()).with(Operand::Lse), &["gradient of lse"]);
    refused(Backward::of(call()).only(&[]), &["gradients wanted", "none"]);
    refused(Backward::of(call()).from_lse(), &["gradient of lse", "a call without lse"]);
    let scores = Attention { weights: Some(WeightsAt::RawScores), ..call() };
    refused(Backward::of(scores).from_weights(), &["gradient of weights", "RawScores"]);
    refused(Backward::of(call().normalizer(Normalizer::Hard)), &["normalizer", "hard"]);
    let half = Backward::of(call().dtype(DType::F16)).accumulate();
    refused(half.clone(), &["accumulate: gradient of q", "f16", "Backward::in_f32"]);
    assert!(half.in_f32().validate().is_ok());
}

#[test]
fn rows_that_see_nothing_and_masked_keys_have_no_gradient() {
    let shape = Shape { seq_q: 4, ..Shape::self_attention(1, 1, 3, 2) };
    // Row 0 sees no key; key 2, which is NaN, is seen by nobody.
    let attention = Attention::new(shape).mask([1, 1, 4, 3]).sinks();
    let problem = Backward::of(attention).with(Operand::Sinks).validate().unwrap();
    let mut data =
        CaseData { q: noise(8, 1), k: noise(6, 2), v: noise(6, 3), ..CaseData::default() };
    data.sinks = vec![0.5];
    data.mask = (0..12).map(|i| i >= 3 && i % 3 != 2).collect();
    data.k[4..].fill(f64::NAN);
    data.v[4..].fill(f64::INFINITY);
    let incoming = Incoming { o: &noise(8, 4), ..Incoming::default() };
    let found = backward(&problem, &data.inputs(), &incoming).unwrap();
    assert_eq!(found.get(Operand::Q).unwrap()[..2], [0.0; 2]);
    for operand in [Operand::K, Operand::V] {
        assert_eq!(found.get(operand).unwrap()[4..], [0.0; 2], "{operand}");
    }
    assert!(found.iter().all(|(_, values)| values.iter().all(|x| x.is_finite())));
    assert!(found.get(Operand::Sinks).unwrap()[0] != 0.0);
}

#[test]
fn gpu_gradients_match_recorded_ones() {
    let Some(engine) = common::gpu::engine("gpu_gradients_match_recorded_ones") else { return };
    let (mut compared, mut wrong) = ([0, 0], Vec::new());
    for suite in ["jax", "varlen", "real", "forms"] {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(suite);
        for case in GoldenSuite::open(&folder).unwrap().cases {
            let Some(recorded) = case.gradients(Precision::Stored).unwrap() else { continue };
            for (path, compared) in [Path::Staged, Path::Fused].into_iter().zip(&mut compared) {
                let policy = Policy { path, ..Policy::default() };
                let plan = match engine.plan_backward_with(&recorded.backward, &policy) {
                    Err(error) if path == Path::Fused && error.is_unsupported() => continue,
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
    assert_eq!(compared, [645, 248]);
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
fn what_the_fused_path_does_not_serve_says_why() {
    let without = || Attention::new(Shape::self_attention(1, 2, 90, 24));
    let call = || without().with_lse();
    let caps = Capabilities::default();
    let plan = |backward: Backward, path| {
        let policy = Policy { path, ..Policy::default() };
        BackwardPlan::new(&backward.validate().unwrap(), &caps, &policy)
    };
    assert_eq!(plan(Backward::of(call()), Path::Fused).unwrap().path(), Path::Fused);
    assert_eq!(plan(Backward::of(call()), Path::Staged).unwrap().path(), Path::Staged);
    // 16 B a row, whatever the number of keys.
    let scratch = plan(Backward::of(call()), Path::Fused).unwrap().workspace_bytes();
    assert!((2 * 90 * 16..2 * 90 * 16 + 1024).contains(&scratch), "{scratch}");
    let bias = call().bias([1, 1, 90, 90]);
    for (backward, why) in [
        (Backward::of(without()), "Attention::with_lse"),
        (Backward::of(call().dtype(DType::F16)), "too coarse"),
        (Backward::of(bias.clone()).with(Operand::Bias), "gradient of bias"),
        (
            Backward::of(without().normalizer(Normalizer::Sparsemax)),
            "sparsemax needs the whole row",
        ),
    ] {
        let error = plan(backward.clone(), Path::Fused).unwrap_err();
        assert!(error.is_unsupported() && error.to_string().contains(why), "{error}");
        let staged = plan(backward, Path::Auto).unwrap();
        assert_eq!(staged.path(), Path::Staged);
        assert!(staged.to_string().contains(why), "{staged}");
    }
    // That of q, k and v beside a bias, and weights without a row's sum in 16 bits.
    assert!(plan(Backward::of(bias), Path::Fused).is_ok());
    let relu = without().normalizer(Normalizer::Relu { power: 1, divisor: 9.0.into() });
    let plan = plan(Backward::of(relu.dtype(DType::Bf16)), Path::Fused).unwrap();
    assert!(!plan.reads_outputs() && plan.workspace_bytes() == 0, "{plan}");
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
    let policy = Policy { path: Path::Fused, ..Policy::default() };
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
            assert_eq!(alone.get(operand), found.get(operand), "d_{operand} alone");
        }
    }
}

#[test]
fn every_tensor_that_has_a_gradient_is_in_some_case_of_the_quick_grid() {
    let mut seen = BTreeMap::new();
    for case in backward_grid(Grid::Quick).unwrap() {
        let Ok(problem) = case.backward.validate() else { continue };
        for operand in problem.wanted() {
            *seen.entry(operand.name()).or_insert(0) += 1;
        }
    }
    assert_eq!(seen.len(), 12, "{seen:?}");
}

/// One order of sums must pass by the errors of the others.
#[test]
fn fused_multiply_adds_pass_every_case_by_the_errors_of_plain_ones() {
    let mut worst = Vec::new();
    for case in backward_grid(Grid::Quick).unwrap() {
        let Ok((problem, data, incoming)) = case.generate() else { continue };
        let (inputs, incoming) = (data.inputs(), incoming.incoming());
        let others = [Order::Forward, Order::Reversed];
        let truth = GradientTruth::measure_with(&problem, &inputs, &incoming, &others).unwrap();
        let found = emulate_backward(&problem, &inputs, &incoming, Order::Blocked).unwrap();
        for (operand, comparison) in truth.check(&found) {
            if !comparison.pass {
                worst.push(format!("{} {operand}: {}", case.name, comparison.message()));
            }
        }
    }
    assert!(worst.is_empty(), "{} failures:\n{}", worst.len(), worst.join("\n"));
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
        call(odd).cosine(1e-6, true).dtype(DType::Bf16).layout(Layout::Bshd),
        call(shape).cosine(1e-6, true).rotary(interleaved),
        // All rows are shorter than eps.
        call(shape).cosine(1e3, false),
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

/// A call of one head with its gradients of q, k and v, all tensors in one buffer, 256 bytes apart.
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
    let step = (4 * n as u64).next_multiple_of(256);
    let arena = engine.device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 9 * step,
        usage: wgpu::BufferUsages::STORAGE
            | wgpu::BufferUsages::COPY_SRC
            | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    for (i, values) in [&data.q, &data.k, &data.v, &d_o].into_iter().enumerate() {
        let floats = DType::F32.encode(values.iter().copied());
        engine.queue().write_buffer(&arena, i as u64 * step, &floats);
    }
    let at = |i: u64| BufferView { buffer: &arena, offset: i * step };
    let tensors = || {
        let mut tensors = Tensors::new(at(0), at(1), at(2), at(4));
        tensors.lse = Some(at(5));
        tensors
    };
    let wanted = [(Operand::Q, 6), (Operand::K, 7), (Operand::V, 8)];
    let gradients = BackwardTensors::new(tensors(), at(3));
    let gradients = wanted.iter().fold(gradients, |all, (of, i)| all.with(*of, at(*i)));
    let (first, second) =
        (engine.bind(&forward, &tensors()).unwrap(), engine.bind_backward(&plan, &gradients));
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    first.encode(&mut encoder);
    second.unwrap().encode(&mut encoder);
    let back = Readback::record(engine.device(), &mut encoder, &arena, 0, arena.size()).unwrap();
    engine.queue().submit([encoder.finish()]);
    let found = DType::F32.decode(&back.read_blocking().unwrap());
    let incoming = Incoming { o: &d_o, ..Incoming::default() };
    let apart = engine.run_backward_host(&plan, &data.inputs(), &incoming).unwrap();
    let truth = backward.validate().unwrap();
    let truth = GradientTruth::measure(&truth, &data.inputs(), &incoming).unwrap();
    assert!(truth.check(&apart).iter().all(|(_, x)| x.pass));
    for (operand, i) in wanted {
        let start = (i * step / 4) as usize;
        assert_eq!(found[start..start + n], *apart.get(operand).unwrap(), "{operand}");
    }
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
    let bytes = 4 * n as u64;
    let step = bytes.next_multiple_of(256);
    let usage =
        wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let arena = engine.device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 8 * step,
        usage,
        mapped_at_creation: false,
    });
    for (i, values) in [&data.q, &data.k, &data.v, &d_o].into_iter().enumerate() {
        let floats = DType::F32.encode(values.iter().copied());
        engine.queue().write_buffer(&arena, i as u64 * step, &floats);
    }
    let at = |i: u64| BufferView { buffer: &arena, offset: i * step };
    let tensors = || BackwardTensors::new(Tensors::new(at(0), at(1), at(2), at(4)), at(3));
    let wanted = [(Operand::Q, 5), (Operand::K, 6), (Operand::V, 7)];
    let all = wanted.iter().fold(tensors(), |tensors, (of, i)| tensors.with(*of, at(*i)));
    let bound = engine.bind_backward(&plan, &all).unwrap();
    assert!(bound.to_string().contains("backward_keys"), "{bound}");
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    bound.encode(&mut encoder);
    let back = Readback::record(engine.device(), &mut encoder, &arena, 0, arena.size()).unwrap();
    engine.queue().submit([encoder.finish()]);
    let found = DType::F32.decode(&back.read_blocking().unwrap());
    let incoming = Incoming { o: &d_o, ..Incoming::default() };
    let apart = engine.run_backward_host(&plan, &data.inputs(), &incoming).unwrap();
    for (operand, i) in wanted {
        let start = (i * step / 4) as usize;
        assert_eq!(found[start..start + n], *apart.get(operand).unwrap(), "{operand}");
    }

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
    let beyond = BufferView { buffer: &arena, offset: 8 * step - 4 };
    refused(tensors().with(q, at(5)).with(k, at(6)).with(v, beyond), &["gradient of v", "size"]);
}
