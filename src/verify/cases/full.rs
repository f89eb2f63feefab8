//! What the full grid adds: systematic products.

use crate::feature::align::Align::{BottomRight, Offset, PerBatch, TopLeft};
use crate::feature::mask::Bits;
use crate::problem::WeightsAt;
use crate::tensor::{Broadcast, DType, Layout};
use crate::verify::cases::quick::{DIMS, LENGTHS, POINTS, broadcast, call, usual};
use crate::verify::cases::{Case, cache, forms, padded, seen};
use crate::verify::data::DataOptions;

pub(super) fn cases() -> Vec<Case> {
    let groups = [lengths(), dims(), few_bits(), features(), shown(), decode()];
    groups
        .into_iter()
        .flatten()
        .chain(forms::cases())
        .chain(cache::full())
        .chain(seen::full())
        .collect()
}

/// Every pair of lengths, types and masks by turns.
fn lengths() -> Vec<Case> {
    let mut cases = Vec::new();
    for (i, &seq_q) in LENGTHS.iter().enumerate() {
        for (j, &seq_kv) in LENGTHS.iter().enumerate() {
            let dtype = DType::ALL[(i + j) % 3];
            let base = || call(1, [2, 1], [seq_q, seq_kv], [64, 64]).dtype(dtype).with_lse();
            cases.push(usual(base()));
            cases.push(usual(base().causal(if i % 2 == 0 { BottomRight } else { TopLeft })));
        }
    }
    cases
}

/// Every head dimension in every type and layout, and pairs of different dimensions.
fn dims() -> Vec<Case> {
    let mut cases = Vec::new();
    for dim in DIMS {
        for dtype in DType::ALL {
            let base = || call(2, [2, 1], [21, 67], [dim, dim]).dtype(dtype).causal(BottomRight);
            cases.push(usual(base()));
            cases.push(usual(base().layout(Layout::Bshd).with_lse()));
            cases.push(usual(padded(base(), 3)));
        }
    }
    for (i, &qk) in DIMS.iter().enumerate().step_by(2) {
        for (j, &v) in DIMS.iter().enumerate().step_by(3).filter(|(_, v)| **v != qk) {
            let dtype = DType::ALL[(i + j) % 3];
            cases.push(usual(call(1, [2, 2], [18, 65], [qk, v]).dtype(dtype)));
        }
    }
    cases
}

/// A bias of every broadcast shape in each type of 16 bits, beside a mask in bits.
fn few_bits() -> Vec<Case> {
    let base = || call(2, [4, 2], [19, 70], [24, 16]).with_lse();
    let of = |(dtype, bits): (DType, usize)| {
        let mask = Bits(Broadcast(broadcast(base().shape, 15 - bits)));
        let bias = broadcast(base().shape, bits);
        usual(base().masked(mask).bias(bias).bias_dtype(dtype))
    };
    let types = [DType::F16, DType::Bf16].into_iter();
    types.flat_map(|dtype| (0..16).map(move |bits| (dtype, bits))).map(of).collect()
}

/// Every subset of seven features, alignments and types by turns.
fn features() -> Vec<Case> {
    let mut cases = Vec::new();
    for bits in 0..128_usize {
        let align = [TopLeft, BottomRight, Offset(-5), PerBatch][bits % 4];
        let dtype = DType::ALL[bits % 3];
        let heads = [[2, 2], [4, 2], [3, 1]][bits % 3];
        let mut x = call(3, heads, [35, 67], [32, 32]).dtype(dtype).with_lse();
        let on = |bit: usize| bits >> bit & 1 == 1;
        if on(0) {
            x = x.causal(align);
        }
        if on(1) {
            x = x.window(Some(20), Some(11), align);
        }
        if on(2) {
            x = x.softcap(4.0);
        }
        if on(3) {
            let shape = broadcast(x.shape, (bits % 16) | 0b1000);
            x = x.mask(shape);
        }
        if on(4) {
            let shape = broadcast(x.shape, bits / 8 % 16);
            x = x.bias(shape).alibi(align);
        }
        if on(5) {
            x = x.sinks();
        }
        if on(6) {
            x = x.kv_lengths().q_lengths();
        }
        cases.push(Case::new(x, DataOptions { poison: true, ..DataOptions::default() }));
    }
    cases
}

/// Every point at which scores are shown, in every type, with masks of each kind.
fn shown() -> Vec<Case> {
    let mut cases = Vec::new();
    for at in POINTS {
        for dtype in DType::ALL {
            let base = || call(2, [4, 2], [33, 65], [24, 40]).dtype(dtype).with_weights(at);
            let mask = broadcast(base().shape, 0b1001);
            cases.push(usual(base().causal(BottomRight)));
            cases.push(usual(base().window(Some(3), Some(3), TopLeft).softcap(2.0)));
            cases.push(usual(base().mask(mask).sinks().with_lse()));
            cases.push(usual(base().bias([2, 4, 33, 65]).kv_lengths()));
            cases.push(usual(base().alibi(TopLeft).q_lengths().layout(Layout::Bshd)));
        }
    }
    cases
}

/// One query row or a few, many keys, every group size.
fn decode() -> Vec<Case> {
    let mut cases = Vec::new();
    for (i, group) in [1, 2, 3, 4, 8].into_iter().enumerate() {
        for seq_q in [1, 2, 5] {
            for (j, seq_kv) in [64, 513, 1025].into_iter().enumerate() {
                let dtype = DType::ALL[(i + j) % 3];
                let x = call(2, [2 * group, 2], [seq_q, seq_kv], [64, 64]).dtype(dtype).with_lse();
                cases.push(usual(x.clone().causal(BottomRight)));
                cases.push(usual(x.clone().kv_lengths().sinks()));
                cases.push(usual(x.with_weights(WeightsAt::Probabilities)));
            }
        }
    }
    cases
}
