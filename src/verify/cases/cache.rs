//! Cases of a cache: few query rows against keys in pages and in every storage.

use crate::feature::align::Align::BottomRight;
use crate::feature::mask::Tree;
use crate::feature::normalize::Normalizer;
use crate::feature::prepare::Rotary;
use crate::feature::score::KvScales;
use crate::problem::{Attention, WeightsAt};
use crate::tensor::{DType, Layout, Scalar, Storage};
use crate::verify::cases::quick::{call, usual};
use crate::verify::cases::{Case, padded};
use crate::verify::data::{DataOptions, Lengths};

/// Keys of a page.
const PAGES: [u32; 5] = [1, 3, 16, 64, 256];

/// Keys in pages, a few more of them than are used.
pub(super) fn in_pages(attention: Attention, page_size: u32) -> Attention {
    let (batch, row) = (attention.shape.batch, attention.shape.seq_kv.div_ceil(page_size) + 1);
    attention.paged(batch * row + 2, page_size, row)
}

fn poisoned(attention: Attention, lengths: Lengths) -> Case {
    Case::new(attention, DataOptions { poison: true, lengths, ..DataOptions::default() })
}

/// Each page size with each storage once, each feature that looks at positions, layouts.
pub(super) fn quick() -> Vec<Case> {
    let mut cases = Vec::new();
    for (i, page) in PAGES.into_iter().enumerate() {
        // Newer storages with one page size each.
        for (j, storage) in Storage::ALL.iter().copied().enumerate() {
            if j >= PAGES.len() && i != j - PAGES.len() {
                continue;
            }
            let keys = [page - 1, page + 1, 2 * page + 3, 4 * page, 70][(i + j) % 5].max(1);
            let seq_q = [1, 2, 4, 16][(i + j) % 4];
            let call = call(3, [4, 2], [seq_q, keys], [40, 24]).kv_storage(storage).with_lse();
            cases.push(poisoned(in_pages(call, page).causal(BottomRight), Lengths::Mixed));
        }
    }
    for (i, storage) in Storage::ALL.iter().copied().enumerate() {
        let dtype = DType::ALL[i % 3];
        let base = || call(2, [6, 2], [3, 150], [64, 64]).dtype(dtype).kv_storage(storage);
        cases.push(poisoned(base().with_lse(), Lengths::Full));
        if i >= PAGES.len() {
            continue;
        }
        cases.push(poisoned(base().layout(Layout::Bshd).kv_lengths().sinks(), Lengths::Mixed));
        let call = in_pages(base(), 16).window(Some(20), None, BottomRight).softcap(5.0);
        cases.push(poisoned(call, Lengths::Partial));
        let call = in_pages(base(), 64).alibi(BottomRight).mask([1, 1, 3, 150]).q_lengths();
        cases.push(poisoned(call.with_lse(), Lengths::Mixed));
    }
    // Scales that are not the rows' to say.
    for (i, storage) in [Storage::E4m3, Storage::E5m2, Storage::Int4].into_iter().enumerate() {
        for scales in [KvScales::Tensor, KvScales::Head] {
            let scaled = |seq| {
                let call = call(2, [6, 2], seq, [40, 24]).dtype(DType::ALL[i]);
                call.kv_storage(storage).kv_scales(scales).with_lse()
            };
            cases.push(poisoned(in_pages(scaled([3, 150]), 16).sinks(), Lengths::Mixed));
            cases.push(poisoned(scaled([67, 70]).causal(BottomRight).softcap(3.0), Lengths::Full));
        }
    }
    // Queries turned by their place at the end of the keys, which were turned when they were appended.
    for (page, dim) in [(3, 8), (16, 40)] {
        let rotary = Rotary { at_end: true, keys_from: 70, ..Rotary::new(dim, 80) };
        let call = in_pages(call(3, [4, 2], [3, 70], [40, 24]), page).rotary(rotary);
        cases.push(poisoned(call.clone().causal(BottomRight), Lengths::Mixed));
        cases.push(poisoned(call.q_lengths().with_lse(), Lengths::Mixed));
    }
    // Drafted tokens at the end of what they follow, in a tree.
    for (i, storage) in Storage::ALL.iter().copied().step_by(2).enumerate() {
        let tree = Tree { align: BottomRight, shared: i % 2 == 1 };
        let call = call(3, [6, 2], [7, 150], [64, 64]).kv_storage(storage).tree(tree).with_lse();
        cases.push(poisoned(in_pages(call, 16), Lengths::Full));
    }
    // Channels that fill neither a word nor a block of 32.
    for dim in [[1, 3], [33, 65], [100, 128], [31, 8]] {
        let small = [Storage::E4m3, Storage::E5m2Row, Storage::Mxfp4];
        for storage in [Storage::Int8, Storage::Int4, Storage::F16].into_iter().chain(small) {
            cases.push(poisoned(call(1, [3, 1], [2, 70], dim).kv_storage(storage), Lengths::Full));
        }
    }
    // Many rows read a cache too.
    for storage in [Storage::F32, Storage::F16, Storage::Int8, Storage::Int4, Storage::Mxfp4] {
        let call = call(2, [4, 2], [67, 130], [64, 32]).kv_storage(storage).causal(BottomRight);
        cases.push(poisoned(in_pages(call, 16).with_lse(), Lengths::Mixed));
    }
    cases.extend(whole_rows());
    cases.extend(served());
    cases
}

/// Prompts and single tokens in one call: rows packed, keys in pages.
fn served() -> Vec<Case> {
    let mut cases = Vec::new();
    for (i, storage) in Storage::ALL.iter().copied().enumerate() {
        let (page, rows) = (PAGES[i % PAGES.len()], [19, 70, 5][i % 3]);
        let packed = |dtype: DType| {
            let call = call(3, [6, 2], [rows, 150], [40, 24]).dtype(dtype).kv_storage(storage);
            in_pages(call, page).packed(rows + rows / 2, 0).causal(BottomRight)
        };
        cases.push(poisoned(packed(DType::F32).with_lse(), Lengths::Mixed));
        let call = packed(DType::ALL[(i + 1) % 3]);
        let call = match i % 3 {
            0 => call.sinks(),
            1 => call.alibi(BottomRight).softcap(5.0),
            _ => call.window(Some(20), Some(0), BottomRight),
        };
        cases.push(poisoned(call, Lengths::Full));
    }
    // Keys one after another, of which each sequence has filled a part.
    for dtype in [DType::F32, DType::F16] {
        let call = call(3, [6, 2], [40, 90], [24, 16]).dtype(dtype).kv_lengths().packed(90, 140);
        let plain = dtype == DType::F32;
        let call = if plain { call.with_lse() } else { call.causal(BottomRight).sinks() };
        // Of mixed lengths, as data is unless it is asked otherwise.
        cases.push(usual(call));
    }
    let padded = call(3, [6, 2], [19, 70], [40, 24]).kv_lengths().packed(40, 0);
    cases.push(poisoned(padded.causal(BottomRight).with_lse(), Lengths::Mixed));
    cases.extend(turned());
    cases.extend(shown());
    cases
}

/// Weights and scores of packed sequences, which have rows and keys of the longest.
fn shown() -> Vec<Case> {
    let base = || call(3, [6, 2], [70, 90], [24, 16]).packed(120, 140);
    let calls = [
        base().with_weights(WeightsAt::Probabilities).causal(BottomRight).with_lse(),
        base().with_weights(WeightsAt::Probabilities).normalizer(Normalizer::Sparsemax),
        base()
            .with_weights(WeightsAt::Probabilities)
            .normalizer(Normalizer::Relu { power: 1, divisor: Scalar(90.0) }),
        base().with_weights(WeightsAt::RawScores).dtype(DType::F16),
        base().with_weights(WeightsAt::AfterSoftcap).softcap(4.0).kv_lengths(),
        base().with_weights(WeightsAt::AfterBias).alibi(BottomRight).dtype(DType::Bf16),
        base().with_weights(WeightsAt::Probabilities).rotary(Rotary::new(24, 100)),
    ];
    let mut cases: Vec<Case> = calls.map(usual).into();
    let rows = call(3, [6, 2], [70, 90], [24, 16]).kv_lengths().packed(120, 0);
    cases.push(poisoned(rows.with_weights(WeightsAt::Probabilities), Lengths::Mixed));
    let pages = in_pages(call(3, [6, 2], [70, 90], [24, 16]), 16).packed(120, 0);
    cases.push(poisoned(pages.with_weights(WeightsAt::RawScores), Lengths::Mixed));
    cases
}

/// Packed rows and keys that are rotated, brought to length 1 or projected before they meet.
fn turned() -> Vec<Case> {
    let base = || call(3, [6, 2], [40, 90], [24, 16]);
    let at_end = Rotary { at_end: true, ..Rotary::new(16, 200) };
    let in_cache = Rotary { keys_from: 90, ..at_end };
    let packed = [
        base().rotary(Rotary::new(24, 100)).packed(90, 140).causal(BottomRight).with_lse(),
        base().rotary(Rotary { interleaved: true, ..at_end }).packed(90, 140).dtype(DType::F16),
        base().cosine_scaled(1e-6).packed(90, 140).dtype(DType::Bf16).with_lse(),
        base().general(12).rotary(Rotary::new(12, 100)).packed(90, 140),
        base().rotary(at_end).kv_lengths().packed(90, 140),
        base().rotary(Rotary { ids: true, key_ids: true, ..Rotary::new(16, 200) }).packed(90, 140),
    ];
    let mut cases: Vec<Case> = packed.map(usual).into();
    let rows = base().rotary(in_cache).kv_lengths().packed(90, 0).causal(BottomRight);
    cases.push(poisoned(rows, Lengths::Mixed));
    let pages = in_pages(base().rotary(in_cache), 16).packed(90, 0).causal(BottomRight);
    cases.push(poisoned(pages.dtype(DType::F16).with_lse(), Lengths::Mixed));
    cases
}

/// What needs whole rows of scores, against every storage, in pages and not: weights that are returned, and normalisers
/// that only the staged path has.
fn whole_rows() -> Vec<Case> {
    let shown = [
        WeightsAt::RawScores,
        WeightsAt::AfterSoftcap,
        WeightsAt::AfterBias,
        WeightsAt::Probabilities,
    ];
    let normalizers = [Normalizer::Sparsemax, Normalizer::Entmax15, Normalizer::Monotonic];
    let mut cases = Vec::new();
    for (i, storage) in Storage::ALL.iter().copied().enumerate() {
        let scaled = storage.dtype().is_none() && i % 2 == 1;
        let base = |rows, keys| {
            let call = call(2, [4, 2], [rows, keys], [40, 24]).kv_storage(storage);
            let call = call.dtype(DType::ALL[i % 3]);
            if scaled { call.kv_scales(KvScales::Head) } else { call }
        };
        let page = PAGES[(i + 1) % PAGES.len()];
        let weights = base(5, 70).softcap(4.0).with_weights(shown[i % shown.len()]);
        cases.push(poisoned(in_pages(weights, page).causal(BottomRight), Lengths::Mixed));
        let weights = base(67, 70).with_weights(shown[(i + 3) % shown.len()]).with_lse();
        cases.push(poisoned(weights, Lengths::Full));
        let rows = base(3, 150).normalizer(normalizers[i % normalizers.len()]);
        cases.push(poisoned(in_pages(rows, page), Lengths::Partial));
    }
    cases
}

/// Page sizes, lengths and storages, crossed.
pub(super) fn full() -> Vec<Case> {
    let mut cases = Vec::new();
    for page in PAGES {
        for (i, storage) in Storage::ALL.iter().copied().enumerate() {
            if i >= PAGES.len() && page != PAGES[i - PAGES.len()] {
                continue;
            }
            for (j, keys) in [1, page - 1, page, page + 1, 4097].into_iter().enumerate() {
                let dtype = DType::ALL[(i + j) % 3];
                let (batch, seq_q) = (if keys > 1000 { 2 } else { 3 }, [1, 5][(i + j) % 2]);
                let call = call(batch, [4, 2], [seq_q, keys.max(1)], [64, 64]);
                let call = call.dtype(dtype).kv_storage(storage).causal(BottomRight).with_lse();
                let lengths = if keys == 0 { Lengths::Zero } else { Lengths::Full };
                cases.push(poisoned(in_pages(call.clone(), page), lengths));
                cases.push(poisoned(in_pages(call, page).sinks(), Lengths::Mixed));
            }
        }
    }
    // A key without gaps between rows and heads, and with gaps.
    for storage in [Storage::F32, Storage::F16, Storage::Bf16] {
        let call = call(2, [4, 2], [2, 90], [32, 32]).kv_storage(storage);
        cases.push(poisoned(padded(call, 4), Lengths::Full));
    }
    cases
}
