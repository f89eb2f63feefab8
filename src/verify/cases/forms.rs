//! Cases of other scores, normalisers, positions and places: every second one is in the quick grid, all in
//! the full one.

use crate::feature::align::Align::{BottomRight, Offset, PerBatch, TopLeft};
use crate::feature::mask::{Axis, Blocks, Edges, Neighborhood, Tree};
use crate::feature::normalize::Normalizer;
use crate::feature::prepare::Rotary;
use crate::feature::score::Relative;
use crate::problem::{Attention, WeightsAt};
use crate::tensor::{DType, Layout, Scalar, Storage};
use crate::verify::cases::cache::in_pages;
use crate::verify::cases::quick::{broadcast, call, usual};
use crate::verify::cases::{Case, padded};
use crate::verify::data::DataOptions;

pub(super) fn cases() -> Vec<Case> {
    [forms(), prepared(), places()].into_iter().flatten().collect()
}

/// Weights left out at random, by every normaliser and on every path; all in the quick grid.
pub(super) fn dropped() -> Vec<Case> {
    let base = || call(2, [4, 2], [67, 90], [24, 40]).dropout(0.2, 0x0123_4567_89ab_cdef);
    let poison = DataOptions { poison: true, ..DataOptions::default() };
    let normalizers = [
        Normalizer::Relu { power: 1, divisor: Scalar(90.0) },
        Normalizer::Sigmoid { bias: Scalar(-4.5) },
        Normalizer::Sparsemax,
        Normalizer::Entmax15,
        Normalizer::Raw,
    ];
    let mut cases: Vec<Case> = [
        base().with_lse(),
        base().causal(BottomRight).sinks().dtype(DType::F16),
        base().with_weights(WeightsAt::Probabilities).dtype(DType::Bf16),
        base().local_gaussian(30.1),
        call(3, [4, 2], [70, 90], [24, 24]).dropout(0.9, 3).packed(120, 150).causal(TopLeft),
        call(1, [8, 2], [3, 300], [64, 64]).dropout(0.5, 1).with_lse(),
        call(1, [8, 2], [3, 300], [64, 64]).dropout(0.0, 1),
    ]
    .map(usual)
    .into();
    let masked = base().mask([2, 1, 67, 90]).kv_lengths().q_lengths().bias([1, 4, 67, 90]);
    cases.push(Case::new(masked, poison));
    // Each kernel that multiplies by a factor does it its own way, and so does each way to step over keys.
    let forms = [
        base().edges(Edges { count: 700, bias: false }),
        base().blocks(Blocks { batch: 2, heads: 4, ..Blocks::new(16, 32) }),
        base().window(Some(11), Some(3), TopLeft),
        base().dilated(3, TopLeft),
        in_pages(base().kv_storage(Storage::E4m3Row), 16),
    ];
    cases.extend(forms.map(|call| Case::new(call, poison)));
    cases.extend(normalizers.map(|normalizer| usual(base().normalizer(normalizer))));
    cases
}

/// Normalisers and inner loops other than softmax of a product.
fn forms() -> Vec<Case> {
    let base = || call(2, [4, 2], [67, 90], [24, 40]);
    let normalizers = [
        Normalizer::Relu { power: 1, divisor: Scalar(90.0) },
        Normalizer::Relu { power: 2, divisor: Scalar(7.0) },
        Normalizer::Sigmoid { bias: Scalar(-4.5) },
        Normalizer::Hard,
        Normalizer::Sample { seed: 0x1234_5678_9abc_def0 },
        Normalizer::Sparsemax,
        Normalizer::Entmax15,
        Normalizer::Raw,
    ];
    let poison = DataOptions { poison: true, ..DataOptions::default() };
    let hot = DataOptions { logits: 30.0, ..DataOptions::default() };
    let mut cases = Vec::new();
    for (i, normalizer) in normalizers.into_iter().enumerate() {
        let plain = || base().normalizer(normalizer);
        let mask = broadcast(plain().shape, 0b1101);
        let shown = plain().mask(mask).with_weights(WeightsAt::Probabilities);
        cases.push(usual(plain().dtype(DType::ALL[i % 3])));
        cases.push(Case::new(shown.causal(Offset(9)), poison));
        cases.push(Case::new(plain().bias([1, 4, 67, 90]).kv_lengths().q_lengths(), poison));
        cases.push(Case::new(plain().softcap(20.0).window(Some(11), Some(3), TopLeft), hot));
        cases.push(usual(call(1, [2, 1], [5, 300], [64, 64]).normalizer(normalizer)));
    }
    for bias in [false, true] {
        let forward = base().normalizer(Normalizer::Monotonic).causal(Offset(30));
        let forward = if bias { forward.bias([1, 4, 67, 90]) } else { forward };
        cases.push(Case::new(forward.clone().kv_lengths().q_lengths(), poison));
        cases.push(usual(forward.with_weights(WeightsAt::Probabilities)));
    }
    let shown = || base().with_weights(WeightsAt::AfterBias);
    cases.push(usual(shown().normalizer(Normalizer::Sample { seed: 3 }).alibi(TopLeft)));
    for dim in [1, 3, 8, 33, 64, 130] {
        let additive = call(2, [4, 2], [35, 70], [dim, 16]).additive(0.7).with_lse();
        cases.push(usual(additive.clone().dtype(DType::ALL[dim as usize % 3])));
        cases.push(Case::new(additive.causal(BottomRight).sinks(), poison));
    }
    for dim in [1, 24, 66] {
        let leaky = call(2, [2, 2], [35, 70], [dim, 16]).additive_leaky(0.2).with_lse();
        cases.push(Case::new(leaky.mask([2, 1, 35, 70]), poison));
    }
    let additive = base().additive(1.0).scale(2.0);
    cases.push(usual(additive.clone().normalizer(Normalizer::Sparsemax)));
    cases.push(usual(additive.clone().mask([1, 1, 67, 90]).with_lse()));
    cases.push(usual(additive.with_weights(WeightsAt::RawScores)));
    cases
}

/// q and k that are rotated, projected or normalised first, and biases by relative position.
fn prepared() -> Vec<Case> {
    let base = || call(2, [4, 2], [35, 70], [24, 16]).with_lse();
    let cached = Rotary { q_start: 35, keys_from: 35, k_start: 35, ..Rotary::new(24, 70) };
    let ids = Rotary { ids: true, ..Rotary { keys_from: 40, ..Rotary::new(10, 50) } };
    let shared = Rotary { shared_ids: true, ..ids };
    let own = Rotary { ids: true, key_ids: true, keys_from: 3, ..Rotary::new(16, 90) };
    let counted = Rotary { key_ids: true, shared_ids: true, q_start: 31, ..Rotary::new(24, 66) };
    let hot = DataOptions { logits: 20.0, ..DataOptions::default() };
    let poison = DataOptions { poison: true, ..DataOptions::default() };
    let mut cases = Vec::new();
    let rotaries = [Rotary::new(24, 70), Rotary::new(6, 99), cached, ids, shared, own, counted];
    for (i, rotary) in rotaries.into_iter().enumerate() {
        let dtype = DType::ALL[i % 3];
        cases.push(usual(base().rotary(rotary).dtype(dtype)));
        let interleaved = Rotary { interleaved: true, ..rotary };
        cases.push(Case::new(base().rotary(interleaved).causal(Offset(35)).kv_lengths(), poison));
        cases.push(usual(base().rotary(interleaved).layout(Layout::Bshd)));
    }
    let yarn = DataOptions { yarn: true, ..DataOptions::default() };
    for interleaved in [false, true] {
        let rotary = Rotary { interleaved, ..Rotary::new(16, 70) };
        cases.push(Case::new(base().rotary(rotary).causal(Offset(35)), yarn));
    }
    for dim in [1, 3, 24, 65] {
        let cosine = call(2, [4, 2], [35, 70], [dim, 16]).with_lse();
        let cosine = if dim > 3 { cosine.cosine_scaled(1e-6) } else { cosine.cosine(1e-6) };
        cases.push(Case::new(cosine.clone().scale(10.0), hot));
        cases.push(usual(padded(cosine.bias([1, 4, 35, 70]).dtype(DType::F16), 1)));
        for dim_q in [5, 64] {
            let general = call(2, [4, 2], [35, 70], [dim, 16]).general(dim_q).with_lse();
            cases.push(usual(general.mask([2, 1, 1, 70]).dtype(DType::ALL[dim as usize % 3])));
        }
    }
    let rotated = Rotary::new(12, 70);
    cases.push(usual(base().general(13).rotary(rotated).with_weights(WeightsAt::RawScores)));
    cases.push(usual(base().cosine_scaled(0.0).rotary(rotated).sinks()));
    for (left, right, offset) in [(0, 0, 0), (34, 69, 0), (5, 3, 35), (100, 2, -7)] {
        let relative = Relative { left, right, offset };
        cases.push(usual(base().relative(relative).softcap(9.0).causal(Offset(35))));
    }
    cases
}

/// Masks by place.
fn places() -> Vec<Case> {
    let base = || call(2, [4, 2], [70, 130], [16, 24]).with_lse();
    let poison = DataOptions { poison: true, ..DataOptions::default() };
    let mut cases = Vec::new();
    for step in [1, 2, 7, 200] {
        cases.push(Case::new(base().dilated(step, TopLeft), poison));
        let window = base().dilated(step, BottomRight).window(Some(20), Some(5), BottomRight);
        cases.push(Case::new(window.causal(BottomRight), poison));
        cases.push(Case::new(base().chunked(step * 8, Offset(-9)), poison));
        cases.push(Case::new(base().chunked(step * 8, PerBatch).causal(PerBatch), poison));
    }
    let axis = |n, size, stride, dilation, causal| Axis { n, size, stride, dilation, causal };
    let one = Axis::new(1, 1);
    let grids = [
        Neighborhood::line(70, 5),
        Neighborhood([one, one, axis(70, 6, 3, 2, false)]),
        Neighborhood([one, one, axis(70, 7, 2, 3, true)]),
        Neighborhood::image(10, 13, 3),
        Neighborhood([one, axis(9, 4, 1, 2, true), axis(12, 5, 5, 2, false)]),
        Neighborhood([axis(4, 3, 2, 1, false), axis(5, 2, 1, 2, false), axis(6, 3, 1, 1, true)]),
    ];
    for grid in grids {
        let n = grid.points() as u32;
        let near = || call(2, [4, 2], [n, n], [16, 24]).neighborhood(grid);
        cases.push(Case::new(near().with_lse(), poison));
        cases.push(usual(near().with_weights(WeightsAt::Probabilities)));
    }
    for (count, bias) in [(0, false), (50, false), (333, true), (2000, false), (4000, true)] {
        let graph = || base().edges(Edges { count, bias });
        cases.push(Case::new(graph(), poison));
        cases.push(Case::new(graph().causal(BottomRight).kv_lengths().sinks(), poison));
        cases.push(usual(graph().additive_leaky(0.2).dtype(DType::F16)));
        cases.push(usual(graph().with_weights(WeightsAt::AfterBias)));
    }
    // Trees after keys of any number, after none, and rows that fill several tiles.
    for (seq, align) in [([9, 150], BottomRight), ([70, 130], PerBatch), ([33, 33], Offset(0))] {
        for shared in [false, true] {
            let tree = || call(2, [4, 2], seq, [24, 16]).tree(Tree { align, shared }).with_lse();
            cases.push(Case::new(tree(), poison));
            cases.push(usual(tree().mask([1, 1, 1, seq[1]]).kv_lengths().q_lengths().sinks()));
            cases.push(usual(tree().with_weights(WeightsAt::Probabilities)));
        }
    }
    for local in [base().local(11.3), base().local_gaussian(11.3)] {
        let local = || local.clone();
        cases.push(Case::new(local(), poison));
        cases.push(usual(local().causal(TopLeft).kv_lengths().sinks().dtype(DType::F16)));
        cases.push(usual(local().with_weights(WeightsAt::Probabilities)));
        let other = Attention { lse: false, ..local() };
        cases.push(usual(other.clone().normalizer(Normalizer::Entmax15)));
        cases.push(usual(other.normalizer(Normalizer::Sigmoid { bias: Scalar(-2.0) })));
    }
    cases
}
