//! Gradients without a GPU: the float64 reference against recorded ones and against central differences, and what is
//! refused or planned otherwise, and why.

#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;

use common::noise::noise;
use heedful::reference::{Incoming, Order, Outputs, emulate_backward};
use heedful::verify::cases::{BackwardCase, Case, CaseIncoming, Grid, backward_grid, grid};
use heedful::verify::data::CaseData;
use heedful::verify::golden::{GoldenSuite, Precision};
use heedful::verify::gradients::GradientTruth;
use heedful::{
    Attention, Backward, BackwardPlan, BackwardProblem, Capabilities, CustomScore, DType,
    Normalizer, Operand, Path, Policy, Shape, WeightsAt,
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
            let found = problem.reference(&inputs, &recorded.incoming()).unwrap();
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
            loss(&self.problem.problem().reference(&data.inputs()).unwrap(), &self.incoming())
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
        let found = trial.problem.reference(&inputs, &trial.incoming()).unwrap();
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
    assert_eq!(refused.values().sum::<u32>(), 175, "{refused:?}");
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
    let found = trial.problem.reference(&trial.data.inputs(), &trial.incoming()).unwrap();
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
    let found = problem.reference(&data.inputs(), &incoming).unwrap();
    assert_eq!(found.get(Operand::Q).unwrap()[..2], [0.0; 2]);
    for operand in [Operand::K, Operand::V] {
        assert_eq!(found.get(operand).unwrap()[4..], [0.0; 2], "{operand}");
    }
    assert!(found.iter().all(|(_, values)| values.iter().all(|x| x.is_finite())));
    assert!(found.get(Operand::Sinks).unwrap()[0] != 0.0);
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
    // o of 16 bits serves: what its rounding leaves in the mean is corrected.
    let half = Backward::of(call().dtype(DType::F16));
    assert_eq!(plan(half.clone(), Path::Fused).unwrap().path(), Path::Fused);
    assert_eq!(plan(half, Path::Auto).unwrap().path(), Path::FusedTile);
    for (backward, why) in [
        (Backward::of(without()), "Attention::with_lse"),
        (Backward::of(bias.clone()).with(Operand::Bias), "gradient of bias"),
        (
            Backward::of(without().normalizer(Normalizer::Sparsemax)),
            "sparsemax needs the whole row",
        ),
    ] {
        for path in [Path::Fused, Path::FusedTile] {
            let error = plan(backward.clone(), path).unwrap_err();
            assert!(error.is_unsupported() && error.to_string().contains(why), "{error}");
        }
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

/// A row's weights are divided by a sum that rounds once for each key: what no kernel can be held to, the emulations
/// must know. That sum in float64 leaves v's gradients at most two roundings from the truth.
#[test]
fn emulations_round_the_sum_of_a_long_row() {
    let shape = Shape { seq_q: 1, ..Shape::self_attention(1, 1, 50_000, 4) };
    let call = Call::new(&Case::new(Attention::new(shape), Default::default())).unwrap();
    let (inputs, incoming) = (call.data.inputs(), call.incoming());
    let truth = call.problem.reference(&inputs, &incoming).unwrap();
    for order in [Order::Forward, Order::Reversed] {
        let found = emulate_backward(&call.problem, &inputs, &incoming, order).unwrap();
        let pairs = found.get(Operand::V).unwrap().iter().zip(truth.get(Operand::V).unwrap());
        let worst = pairs.map(|(x, e)| ((x - e) / e).abs()).fold(0.0, f64::max);
        let units = worst / f64::from(f32::EPSILON);
        assert!((4.0..400.0).contains(&units), "{order:?}: {units} units in the last place");
    }
}
