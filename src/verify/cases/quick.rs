//! The quick grid: each feature, each edge, small tensors.

use crate::feature::align::Align::{self, BottomRight, Offset, PerBatch, TopLeft};
use crate::feature::mask::{Bits, Blocks, Masks};
use crate::feature::normalize::Normalizer;
use crate::problem::{Attention, WeightsAt};
use crate::tensor::{Broadcast, DType, Layout, Shape, Strides};
use crate::verify::cases::{Case, packed_qkv, padded};
use crate::verify::data::{DataOptions, Lengths};

/// Sequence lengths around the tile edges.
pub(super) const LENGTHS: [u32; 8] = [1, 7, 63, 64, 65, 113, 129, 257];
/// Head dimensions: multiples of the tile, of 4, and of neither.
pub(super) const DIMS: [u32; 15] =
    [1, 3, 8, 40, 64, 65, 80, 96, 128, 192, 256, 320, 512, 600, 1024];
/// Every point at which scores can be shown.
pub(super) const POINTS: [WeightsAt; 4] =
    [WeightsAt::RawScores, WeightsAt::AfterSoftcap, WeightsAt::AfterBias, WeightsAt::Probabilities];

pub(super) fn own() -> Vec<Case> {
    let groups = [shapes(), diagonals(), broadcasts(), scores(), lengths(), layouts(), shown()];
    let more = [extremes(), combined(), sparse()];
    groups.into_iter().chain(more).flatten().collect()
}

/// The examples of masks that none of these cases has: a mask that is new is in the grid.
pub(super) fn examples(cases: &[Case]) -> Vec<Case> {
    let poison = DataOptions { poison: true, ..DataOptions::default() };
    let mut all = Vec::new();
    for (i, seq) in [[70, 70], [130, 67], [9, 150]].into_iter().enumerate() {
        let base = call(2, [4, 2], seq, [24, 16]).dtype(DType::ALL[i]).with_lse();
        let new = Masks::examples(&base.shape).into_iter().filter(|masks| {
            let slots = |masks: &Masks| masks.iter().map(|mask| mask.slot()).collect::<Vec<_>>();
            !cases.iter().any(|case| slots(&case.attention.masks).contains(&slots(masks)[0]))
        });
        let calls = new.map(|masks| Attention { masks, ..base.clone() });
        all.extend(calls.filter(|call| call.validate().is_ok()).map(|x| Case::new(x, poison)));
    }
    all
}

/// `[batch, heads_q / heads_kv, seq_q / seq_kv, dim_qk / dim_v]`.
pub(super) fn call(batch: u32, heads: [u32; 2], seq: [u32; 2], dim: [u32; 2]) -> Attention {
    let ([heads_q, heads_kv], [seq_q, seq_kv], [dim_qk, dim_v]) = (heads, seq, dim);
    Attention::new(Shape { batch, heads_q, heads_kv, seq_q, seq_kv, dim_qk, dim_v })
}

pub(super) fn usual(attention: Attention) -> Case {
    Case::new(attention, DataOptions::default())
}

/// The shape of broadcast `bits`: bit i set keeps axis i.
pub(super) fn broadcast(shape: Shape, bits: usize) -> [u32; 4] {
    let full = [shape.batch, shape.heads_q, shape.seq_q, shape.seq_kv];
    std::array::from_fn(|axis| if bits >> axis & 1 == 1 { full[axis] } else { 1 })
}

fn shapes() -> Vec<Case> {
    let mut cases = Vec::new();
    for (i, &n) in LENGTHS.iter().enumerate() {
        cases.push(call(1, [2, 2], [n, LENGTHS[(i + 3) % 8]], [64, 64]).with_lse());
        cases.push(call(2, [2, 1], [n, n], [40, 40]).dtype(DType::ALL[i % 3]));
    }
    for (i, &dim) in DIMS.iter().enumerate() {
        cases.push(call(1, [2, 1], [33, 70], [dim, dim]).dtype(DType::ALL[i % 3]).with_lse());
    }
    // Multi-head latent attention: one key head, whose first channels are its values.
    for (i, seq) in [[1, 150], [2, 70], [20, 70]].into_iter().enumerate() {
        let latent = call(1, [16, 1], seq, [576, 512]).dtype(DType::ALL[i]).with_lse();
        let row = Layout::Strided(Strides { batch: u64::from(seq[1]) * 576, head: 576, row: 576 });
        cases.push(Attention { layout_v: row, ..latent.causal(BottomRight) });
    }
    for dim in [[64, 32], [32, 80], [1, 128], [192, 128], [3, 5]] {
        cases.push(call(2, [2, 2], [17, 66], dim));
        cases.push(call(1, [2, 1], [17, 66], dim).dtype(DType::F16));
    }
    for group in [1, 2, 3, 4, 8] {
        cases.push(call(2, [2 * group, 2], [19, 65], [32, 32]).with_lse());
        cases.push(call(1, [group, 1], [1, 129], [64, 64]).dtype(DType::F16).with_lse());
    }
    for (batch, seq) in [(0, [5, 5]), (2, [0, 5]), (2, [5, 0]), (1, [0, 0])] {
        let full = call(batch, [2, 1], seq, [8, 8]).with_lse();
        cases.push(full.with_weights(WeightsAt::Probabilities));
    }
    cases.push(call(2, [2, 1], [5, 0], [8, 8]).sinks().with_lse());
    cases.into_iter().map(usual).collect()
}

fn diagonals() -> Vec<Case> {
    let square = || call(2, [2, 1], [129, 129], [32, 32]).with_lse();
    let mut cases = Vec::new();
    for seq in [[65, 130], [130, 65], [7, 70]] {
        for align in [TopLeft, BottomRight, Offset(3), Offset(-9), PerBatch] {
            cases.push(call(2, [2, 1], seq, [16, 16]).causal(align).with_lse());
        }
        cases.push(call(2, [2, 2], seq, [16, 16]).window(Some(20), Some(4), BottomRight));
        cases.push(call(2, [2, 2], seq, [16, 16]).window(Some(9), None, PerBatch).causal(PerBatch));
    }
    for side in [0, 63, 64, 65, 1000] {
        cases.push(square().window(Some(side), Some(side), TopLeft));
        cases.push(square().window(Some(side), None, TopLeft).causal(TopLeft));
    }
    cases.push(square().window(None, Some(5), TopLeft));
    cases.push(square().window(Some(5), None, TopLeft));
    cases.push(square().window(None, None, TopLeft));
    cases.into_iter().map(usual).collect()
}

fn broadcasts() -> Vec<Case> {
    let mut cases = Vec::new();
    for bits in 0..16 {
        let attention = call(2, [4, 2], [13, 67], [16, 16]).with_lse();
        let shape = broadcast(attention.shape, bits);
        let masked = attention.clone().mask(shape);
        let poison = DataOptions { poison: bits % 2 == 1, ..DataOptions::default() };
        cases.push(Case::new(masked, poison));
        let blocks = DataOptions { bias_blocks: bits % 2 == 0, ..DataOptions::default() };
        cases.push(Case::new(attention.clone().bias(shape), blocks));
        // The same shapes in fewer bits.
        let bits = attention.masked(Bits(Broadcast(shape)));
        cases.push(Case::new(bits.bias(shape).bias_dtype(DType::F16), poison));
    }
    cases
}

fn scores() -> Vec<Case> {
    let base = || call(2, [6, 2], [20, 70], [32, 32]).with_lse();
    let hot = DataOptions { logits: 40.0, ..DataOptions::default() };
    let sinks = |sinks| DataOptions { sinks, ..DataOptions::default() };
    let aligns: [Align; 4] = [TopLeft, BottomRight, Offset(5), PerBatch];
    let mut cases: Vec<Case> = aligns.into_iter().map(|x| usual(base().alibi(x))).collect();
    // Steep slopes leave the first 64 keys and more below 0, where nothing is taken.
    let far = call(2, [4, 2], [67, 200], [24, 40]).normalizer(Normalizer::Monotonic);
    cases.push(usual(far.alibi(BottomRight)));
    cases.extend([
        usual(base().softcap(2.0)),
        Case::new(base().softcap(30.0), hot),
        usual(base().scale(1.0)),
        usual(base().scale(-0.5)),
        usual(base().scale(0.0)),
        Case::new(base().sinks(), sinks(10.0)),
        Case::new(base().sinks().causal(Offset(-4)), sinks(10.0)),
        Case::new(base().sinks().dtype(DType::Bf16), sinks(0.0)),
    ]);
    cases
}

fn lengths() -> Vec<Case> {
    let base = || call(3, [2, 1], [12, 70], [32, 32]).with_lse();
    let with = |lengths, poison| DataOptions { lengths, poison, ..DataOptions::default() };
    let mut cases = Vec::new();
    for lengths in [Lengths::Mixed, Lengths::Zero, Lengths::Partial, Lengths::Full] {
        cases.push(Case::new(base().kv_lengths(), with(lengths, true)));
        cases.push(Case::new(base().q_lengths(), with(lengths, false)));
    }
    let both = || base().kv_lengths().q_lengths();
    cases.push(Case::new(both().causal(BottomRight), with(Lengths::Mixed, true)));
    cases.push(Case::new(both().sinks().dtype(DType::F16), with(Lengths::Mixed, true)));
    cases.push(Case::new(both().alibi(BottomRight), with(Lengths::Partial, true)));
    cases
}

fn layouts() -> Vec<Case> {
    let mut cases = Vec::new();
    for (dtype, dim) in [(DType::F32, 64), (DType::F16, 64), (DType::Bf16, 40), (DType::F16, 3)] {
        let base = || call(2, [4, 4], [33, 33], [dim, dim]).dtype(dtype).causal(TopLeft);
        cases.push(base().layout(Layout::Bshd));
        cases.push(packed_qkv(base()));
        cases.push(padded(base(), 4));
        cases.push(padded(base(), 1));
    }
    let grouped = call(2, [4, 1], [9, 70], [32, 16]).layout(Layout::Bshd).with_lse();
    cases.push(Attention { layout_o: Layout::Bhsd, ..grouped });
    cases.into_iter().map(usual).collect()
}

fn shown() -> Vec<Case> {
    let mut cases = Vec::new();
    for at in POINTS {
        let base = || call(2, [4, 2], [9, 67], [16, 16]).with_weights(at);
        let everything = base().causal(BottomRight).softcap(3.0).alibi(BottomRight);
        let mask = broadcast(everything.shape, 0b1101);
        cases.push(base());
        cases.push(base().dtype(DType::F16).kv_lengths().q_lengths().with_lse());
        cases.push(everything.mask(mask).bias([1, 1, 9, 67]).sinks());
    }
    cases.into_iter().map(usual).collect()
}

fn extremes() -> Vec<Case> {
    let base = |dtype| call(2, [2, 1], [33, 70], [64, 64]).dtype(dtype).with_lse();
    let mut cases = Vec::new();
    for dtype in DType::ALL {
        for logits in [1e3, 1e5] {
            let data = DataOptions { logits, ..DataOptions::default() };
            cases.push(Case::new(base(dtype).causal(TopLeft), data));
        }
        let poison = DataOptions { poison: true, ..DataOptions::default() };
        cases.push(Case::new(base(dtype).causal(Offset(-3)).kv_lengths(), poison));
        cases.push(Case::new(base(dtype).window(Some(3), Some(2), TopLeft), poison));
    }
    // Just inside f16: o is a weighted mean of v and stays there.
    let large = DataOptions { values: 6e4, ..DataOptions::default() };
    cases.push(Case::new(base(DType::F16), large));
    cases.push(Case::new(base(DType::F16), DataOptions { logits: 3e4, ..large }));
    cases.push(Case::new(base(DType::F32), DataOptions { values: 1e30, ..large }));
    cases.push(Case::new(base(DType::F32), DataOptions { logits: 0.0, ..DataOptions::default() }));
    cases
}

/// Block tables, given and built from masks, and segments.
fn sparse() -> Vec<Case> {
    let base = || call(2, [4, 2], [130, 200], [32, 16]).with_lse();
    let poison = DataOptions { poison: true, ..DataOptions::default() };
    let mut cases = Vec::new();
    for (rows, keys) in [(64, 64), (32, 32), (128, 16), (16, 48), (5, 7), (1, 1), (1000, 1000)] {
        cases.push(Case::new(base().blocks(Blocks::new(rows, keys)), poison));
    }
    let own = Blocks { batch: 2, heads: 4, ..Blocks::new(48, 24) };
    cases.push(Case::new(base().blocks(own).causal(BottomRight), poison));
    cases.push(Case::new(base().blocks(Blocks { heads: 1, ..own }).segments().sinks(), poison));
    cases.push(usual(base().blocks(own).mask([1, 4, 130, 200]).dtype(DType::F16)));
    cases.push(usual(base().blocks(own).bias([2, 1, 130, 200]).window(Some(90), None, TopLeft)));
    let shown = base().blocks(own).with_weights(WeightsAt::AfterBias);
    cases.push(usual(shown.softcap(3.0)));
    cases.push(Case::new(base().segments(), poison));
    cases.push(Case::new(base().segments().causal(TopLeft).kv_lengths().q_lengths(), poison));
    cases.push(usual(call(3, [2, 1], [9, 11], [8, 8]).segments().with_lse()));
    for bits in [0b1000, 0b1100, 0b1101, 0b1110, 0b1111, 0b0100] {
        let shape = broadcast(base().shape, bits);
        cases.push(Case::new(base().mask(shape).causal(Offset(20)), poison));
    }
    cases.push(usual(base().bias([1, 1, 130, 200])));
    let bits = base().masked(Bits(Broadcast([2, 1, 130, 200])));
    cases.push(Case::new(bits.bias([1, 4, 1, 200]).bias_dtype(DType::F16), poison));
    cases.push(usual(base().bias([2, 1, 130, 200]).bias_dtype(DType::Bf16)));
    cases.push(usual(base().bias([1, 4, 1, 200]).mask([2, 1, 130, 1]).kv_lengths().sinks()));
    cases
}

fn combined() -> Vec<Case> {
    let mut cases = Vec::new();
    for (dtype, align) in DType::ALL.into_iter().zip([BottomRight, PerBatch, Offset(2)]) {
        let base = call(3, [6, 2], [66, 130], [40, 24]).dtype(dtype).layout(Layout::Bshd);
        let base = base.causal(align).window(Some(70), None, align).softcap(20.0).alibi(TopLeft);
        let (mask, bias) = (broadcast(base.shape, 0b1101), broadcast(base.shape, 0b1110));
        let base = base.mask(mask).bias(bias).sinks().kv_lengths().q_lengths().with_lse();
        let data = DataOptions { poison: true, logits: 3.0, ..DataOptions::default() };
        cases.push(Case::new(base.clone(), data));
        cases.push(Case::new(base.with_weights(WeightsAt::Probabilities), data));
    }
    cases
}
