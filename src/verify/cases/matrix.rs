//! The grid for matrix units: the tails of their tiles, logits and values at the ends of f16, and every feature of the
//! quick grid in types that they serve.

use crate::feature::align::Align::{BottomRight, Offset, TopLeft};
use crate::feature::normalize::Normalizer;
use crate::tensor::{DType, Scalar};
use crate::verify::cases::quick::{call, usual};
use crate::verify::cases::{Case, quick_grid};
use crate::verify::data::DataOptions;

/// Lengths around matrices of 8 and 16 and tiles of 16 and 32 keys.
const TAILS: [u32; 13] = [1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 65, 100];
/// Head dimensions around the same, and the usual ones.
const DIMS: [u32; 16] = [1, 4, 7, 8, 9, 12, 16, 17, 24, 33, 40, 64, 80, 96, 128, 256];

pub(super) fn cases() -> Vec<Case> {
    let own = [tails(), dims(), ends()].into_iter().flatten();
    own.chain(quick_grid().into_iter().enumerate().filter_map(in_half)).collect()
}

fn tails() -> Vec<Case> {
    let mut cases = Vec::new();
    for (i, &seq_q) in TAILS.iter().enumerate() {
        for (j, &seq_kv) in TAILS.iter().enumerate() {
            let dtype = [DType::F16, DType::Bf16][(i + j) % 2];
            let base = call(1, [2, 1], [seq_q, seq_kv], [16, 16]).dtype(dtype).with_lse();
            cases.push(match (i + 2 * j) % 4 {
                0 => base,
                1 => base.causal(BottomRight),
                2 => base.causal(TopLeft),
                _ => base.window(Some(9), Some(3), Offset(2)),
            });
        }
    }
    cases.into_iter().map(usual).collect()
}

fn dims() -> Vec<Case> {
    let mut cases = Vec::new();
    for (i, &dim) in DIMS.iter().enumerate() {
        let dtype = [DType::F16, DType::Bf16][i % 2];
        let base = || call(1, [2, 1], [19, 37], [dim, dim]).dtype(dtype).causal(BottomRight);
        cases.push(base().with_lse());
        let other = DIMS[(i + 5) % DIMS.len()];
        cases.push(call(2, [2, 2], [9, 33], [dim, other]).dtype(dtype));
    }
    cases.into_iter().map(usual).collect()
}

/// Logits to 1e4, values near the ends of f16 and past them, NaN in hidden keys.
fn ends() -> Vec<Case> {
    let base = |dtype| call(2, [2, 1], [40, 70], [32, 24]).dtype(dtype).with_lse();
    let mut cases = Vec::new();
    for dtype in [DType::F16, DType::Bf16] {
        for logits in [30.0, 1000.0, 1e4] {
            let data = DataOptions { logits, ..DataOptions::default() };
            cases.push(Case::new(base(dtype), data));
            cases.push(Case::new(base(dtype).causal(TopLeft).sinks(), data));
            // What stays is made larger, by nearly as much as f16 has room for.
            cases.push(Case::new(base(dtype).dropout(0.49, 5), data));
        }
        for values in [6e4, 1e-3, 1e-6] {
            let data = DataOptions { values, ..DataOptions::default() };
            cases.push(Case::new(base(dtype).causal(BottomRight), data));
        }
        let special = DataOptions { special: true, ..DataOptions::default() };
        cases.push(Case::new(base(dtype).causal(TopLeft), special));
        let mask = base(dtype).shape;
        let mask = [mask.batch, 1, mask.seq_q, mask.seq_kv];
        cases.push(Case::new(base(dtype).mask(mask), special));
        let sigmoid = Normalizer::Sigmoid { bias: Scalar(-1.0) };
        let plain = call(2, [2, 1], [40, 70], [32, 24]).dtype(dtype);
        cases.push(usual(plain.normalizer(sigmoid)));
    }
    // Past f16's largest: computed in f32.
    for values in [1e6, 1e30] {
        let data = DataOptions { values, ..DataOptions::default() };
        cases.push(Case::new(base(DType::Bf16).causal(BottomRight), data));
    }
    cases
}

/// A case of the quick grid in f16 or bf16, by turns, and small enough to be compiled for matrices in seconds.
fn in_half((i, case): (usize, Case)) -> Option<Case> {
    let a = case.attention;
    let small = a.shape.dim_qk.max(a.shape.dim_v) <= 128;
    let quantised = a.kv_storage.is_some();
    let served = !a.inner.is_sum() && !quantised;
    let dtype = if i % 3 == 0 { DType::Bf16 } else { DType::F16 };
    (small && served).then(|| Case::new(a.dtype(dtype), case.data))
}
