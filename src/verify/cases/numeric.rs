//! Cases of numbers that are not numbers, or hardly: NaN and ∞ that rows see, scores of −∞, weights that
//! round to 0, rows that overlap.

use crate::feature::align::Align::{BottomRight, Offset, TopLeft};
use crate::feature::normalize::Normalizer;
use crate::problem::{Attention, WeightsAt};
use crate::tensor::{DType, Layout, Scalar, Strides};
use crate::verify::cases::quick::{POINTS, call};
use crate::verify::cases::{Case, Seen};
use crate::verify::data::DataOptions;

pub(super) static FAINT: Seen = Seen::new(
    "heedful-faint",
    "NaN or ∞ in v of a visible key is left out where its weight is 0, on one path and not on another",
);
pub(super) static LOST: Seen = Seen::new(
    "heedful-lost",
    "scores that are all −∞ by data give the mean of v, as if all keys were equally likely",
);
pub(super) static LOWEST_BIAS: Seen = Seen::new(
    "transformers-finfo-min",
    "a mask of the lowest finite number is no −∞: rows of nothing else are the mean of v",
);
pub(super) static SUBNORMAL: Seen = Seen::new(
    "heedful-subnormal",
    "weights and outputs below the smallest normal number, which drivers may flush to 0",
);
pub(super) static OVERLAP: Seen = Seen::new(
    "heedful-overlap",
    "rows that overlap in memory: frames of a signal, one row for all",
);

const USUAL: DataOptions = DataOptions::USUAL;

/// Every normaliser but softmax, with parameters that are usual.
fn others() -> [Normalizer; 8] {
    let relu = |power| Normalizer::Relu { power, divisor: Scalar(8.0) };
    [
        relu(1),
        relu(2),
        Normalizer::Sigmoid { bias: Scalar(-2.0) },
        Normalizer::Raw,
        Normalizer::Hard,
        Normalizer::Sample { seed: 5 },
        Normalizer::Sparsemax,
        Normalizer::Entmax15,
    ]
}

pub(super) fn cases() -> Vec<Case> {
    [faint(), lost(), lowest(), subnormal(), overlapping()].into_iter().flatten().collect()
}

/// NaN and ∞ in v of a key whose weight rounds to 0, is 0 by definition, or is 0 beside a sink.
fn faint() -> Vec<Case> {
    let special = DataOptions { special: true, ..USUAL };
    let data = DataOptions { faint: true, bias_blocks: false, ..special };
    let small = || call(2, [2, 1], [5, 40], [64, 64]).bias([1, 1, 1, 40]);
    let large = |dtype| call(2, [4, 2], [70, 90], [16, 24]).bias([1, 1, 70, 90]).dtype(dtype);
    // The first rows do not see the key.
    let some = |seq: [u32; 2]| {
        let diagonal = Offset((seq[1] / 2 - seq[0] / 2) as i32);
        call(2, [2, 1], seq, [16, 16]).causal(diagonal)
    };
    let mut cases = vec![Case::seen(small().with_lse(), data, &FAINT)];
    for dtype in DType::ALL {
        cases.push(Case::seen(large(dtype).causal(BottomRight).with_lse(), data, &FAINT));
    }
    for normalizer in others() {
        cases.push(Case::seen(small().normalizer(normalizer), data, &FAINT));
        // Weights that are 0 by definition, without any bias.
        cases.push(Case::seen(some([20, 70]).normalizer(normalizer), special, &FAINT));
    }
    let monotonic = some([60, 70]).normalizer(Normalizer::Monotonic);
    cases.push(Case::seen(monotonic, special, &FAINT));
    let shown = small().with_weights(WeightsAt::Probabilities).causal(BottomRight);
    cases.push(Case::seen(shown, data, &FAINT));
    // A sink takes all weight from every key of a head.
    for seq in [[5, 70], [40, 70]] {
        let sinks = DataOptions { sinks: 1e4, ..special };
        cases.push(Case::seen(some(seq).sinks().with_lse(), sinks, &FAINT));
    }
    cases
}

/// Scores of −∞ by data: of all visible keys, or of some.
fn lost() -> Vec<Case> {
    let data = DataOptions { lost: true, ..USUAL };
    let small = || call(2, [2, 1], [5, 40], [64, 64]);
    let mut cases = Vec::new();
    for dtype in DType::ALL {
        let large = call(2, [4, 2], [70, 90], [16, 24]).dtype(dtype).with_lse();
        cases.extend([
            Case::seen(small().dtype(dtype).with_lse(), data, &LOST),
            Case::seen(large.clone(), data, &LOST),
            Case::seen(large.causal(TopLeft).kv_lengths(), data, &LOST),
        ]);
    }
    let many = call(2, [2, 1], [2, 700], [32, 32]).with_lse();
    cases.extend([
        Case::seen(many.clone().sinks(), data, &LOST),
        Case::seen(many, data, &LOST),
        Case::seen(small().bias([1, 1, 5, 40]).with_lse(), data, &LOST),
        Case::seen(small().sinks().with_lse(), data, &LOST),
        Case::seen(small().softcap(3.0).with_lse(), data, &LOST),
    ]);
    cases.extend(others().map(|x| Case::seen(small().normalizer(x), data, &LOST)));
    cases.extend(POINTS.map(|at| {
        let shown = small().with_weights(at).causal(BottomRight).bias([1, 1, 5, 40]);
        Case::seen(shown, data, &LOST)
    }));
    cases
}

/// Biases of the lowest finite number instead of −∞.
fn lowest() -> Vec<Case> {
    let data = DataOptions { lowest_bias: true, bias_blocks: false, ..USUAL };
    let of = |seq: [u32; 2]| call(1, [2, 1], seq, [16, 16]).bias([1, 1, seq[0], seq[1]]).with_lse();
    let shown = of([6, 40]).with_weights(WeightsAt::AfterBias);
    let calls = [of([6, 40]), of([70, 90]), of([6, 40]).causal(BottomRight), shown];
    calls.map(|call| Case::seen(call, data, &LOWEST_BIAS)).into()
}

/// Weights and outputs at the lower end of their types.
fn subnormal() -> Vec<Case> {
    let sigmoid = |bias| {
        let sigmoid = Normalizer::Sigmoid { bias: Scalar(bias) };
        call(1, [2, 1], [6, 40], [16, 16]).normalizer(sigmoid)
    };
    let values = |values| DataOptions { values, ..USUAL };
    let mut cases = Vec::new();
    for bias in [-1e4, -100.0, -95.0, -87.0] {
        cases.push(Case::seen(sigmoid(bias), USUAL, &SUBNORMAL));
        cases.push(Case::seen(sigmoid(bias), values(1e30), &SUBNORMAL));
    }
    cases.push(Case::seen(
        sigmoid(-95.0).with_weights(WeightsAt::Probabilities),
        USUAL,
        &SUBNORMAL,
    ));
    for dtype in DType::ALL {
        let small = call(1, [2, 1], [6, 40], [16, 16]).dtype(dtype).with_lse();
        let value = if dtype == DType::F16 { 6e-5 } else { 1e-38 };
        cases.push(Case::seen(small.clone(), values(value), &SUBNORMAL));
        // Scores so far apart that most weights are below the smallest normal number.
        cases.push(Case::seen(small, DataOptions { logits: 60.0, ..USUAL }, &SUBNORMAL));
    }
    cases
}

/// Strides of rows shorter than the rows, or none.
fn overlapping() -> Vec<Case> {
    let of = |batch, head, row| Layout::Strided(Strides { batch, head, row });
    let mut cases = Vec::new();
    for (i, seq) in [[5, 40], [70, 90]].into_iter().enumerate() {
        for (row, head) in [(8, 640), (3, 301), (0, 64)] {
            let call = call(2, [2, 2], seq, [64, 64]).dtype(DType::ALL[(i + row as usize) % 3]);
            let frames = of(2 * head, head, row);
            let of_keys =
                Attention { layout_k: frames, layout_v: frames, ..call.clone().with_lse() };
            cases.push(Case::seen(of_keys.causal(BottomRight), USUAL, &OVERLAP));
            let all = Attention { layout_q: frames, layout_k: frames, layout_v: frames, ..call };
            cases.push(Case::seen(all, USUAL, &OVERLAP));
        }
    }
    cases
}
