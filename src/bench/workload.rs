//! Workloads: what is timed, as data.

use crate::feature::align::Align;
use crate::feature::mask::Blocks;
use crate::problem::Attention;
use crate::tensor::{DType, Layout, Shape, Storage};

/// A named call.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// Short name, unique in its suite.
    pub name: &'static str,
    /// The call.
    pub attention: Attention,
    /// Share of the blocks that a block table visits.
    pub density: f64,
    /// Whether sequences are, by turns, a part of their room, empty and full; otherwise all are full.
    pub ragged: bool,
}

/// How many workloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Suite {
    /// Small shapes, seconds on a software adapter.
    Quick,
    /// Lengths at which skipped work shows: causal, windows and blocks against all pairs.
    Long,
    /// One query row or a few against a cache: lengths, storages, pages, groups, ragged batches.
    Decode,
    /// The quick ones, and shapes of common models that want a GPU.
    Standard,
}

impl Suite {
    /// The suite's workloads.
    pub fn workloads(self) -> Vec<Workload> {
        match self {
            Self::Quick => quick(),
            Self::Long => long(),
            Self::Decode => decode(),
            Self::Standard => quick().into_iter().chain(standard()).collect(),
        }
    }
}

fn quick() -> Vec<Workload> {
    let square =
        |batch, heads, seq, dim| Attention::new(Shape::self_attention(batch, heads, seq, dim));
    let shape = |batch, [heads_q, heads_kv]: [u32; 2], [seq_q, seq_kv]: [u32; 2], dim| {
        Attention::new(Shape { batch, heads_q, heads_kv, seq_q, seq_kv, dim_qk: dim, dim_v: dim })
    };
    [
        ("square", square(1, 8, 512, 64)),
        ("causal", square(1, 8, 512, 64).causal(Align::TopLeft)),
        ("grouped", shape(1, [8, 2], [256, 256], 128)),
        ("many-small", square(12, 12, 64, 32)),
        ("odd-sizes", square(1, 4, 113, 72)),
        ("cross", shape(1, [8, 8], [128, 512], 64)),
        ("window", square(1, 8, 512, 64).window(Some(64), Some(0), Align::TopLeft)),
        ("padding", square(2, 8, 256, 64).mask([2, 1, 1, 256])),
        ("half", square(1, 8, 512, 64).dtype(DType::F16)),
        ("one-row", shape(1, [8, 8], [1, 1024], 64)),
    ]
    .into_iter()
    .map(dense)
    .collect()
}

fn dense((name, attention): (&'static str, Attention)) -> Workload {
    Workload { name, attention, density: 1.0, ragged: false }
}

fn long() -> Vec<Workload> {
    let full = |seq| Attention::new(Shape::self_attention(1, 8, seq, 64));
    let blocks = |density| Workload {
        name: if density < 0.5 { "blocks-10%-1024" } else { "blocks-all-1024" },
        attention: full(1024).blocks(Blocks::new(64, 64)),
        density,
        ragged: false,
    };
    let mut workloads: Vec<Workload> = [
        ("full-1024", full(1024)),
        ("mask-1024", full(1024).mask([1, 1, 1024, 1024])),
        ("full-2048", full(2048)),
        ("causal-2048", full(2048).causal(Align::TopLeft)),
        ("full-4096", full(4096)),
        ("window-256-4096", full(4096).window(Some(255), Some(0), Align::TopLeft)),
    ]
    .into_iter()
    .map(dense)
    .collect();
    workloads.extend([blocks(1.0), blocks(0.1)]);
    workloads
}

/// As a cache keeps its pages: heads after one another.
fn in_pages(attention: Attention, page_size: u32) -> Attention {
    let row = attention.shape.seq_kv / page_size;
    let paged = attention.paged(row, page_size, row);
    Attention { layout_k: Layout::Bhsd, layout_v: Layout::Bhsd, ..paged }
}

fn decode() -> Vec<Workload> {
    let call = |batch, [heads_q, heads_kv]: [u32; 2], [seq_q, seq_kv]: [u32; 2], dim| {
        Attention::new(Shape { batch, heads_q, heads_kv, seq_q, seq_kv, dim_qk: dim, dim_v: dim })
    };
    let grouped = || call(1, [32, 8], [1, 8192], 128);
    let batch = || call(8, [8, 2], [1, 2048], 64).kv_lengths();
    let mut workloads: Vec<Workload> = [
        ("row-1024", call(1, [8, 8], [1, 1024], 64)),
        ("row-2048", call(1, [8, 8], [1, 2048], 64)),
        ("row-4096", call(1, [8, 8], [1, 4096], 64)),
        ("row-8192", call(1, [8, 8], [1, 8192], 64)),
        ("row-8192-one-head", call(1, [1, 1], [1, 8192], 64)),
        ("rows-4", call(1, [8, 8], [4, 4096], 64)),
        ("rows-16", call(1, [8, 8], [16, 4096], 64)),
        ("kv-heads", call(1, [8, 8], [1, 8192], 128)),
        ("grouped", grouped()),
        ("grouped-1024", call(1, [32, 8], [1, 1024], 128)),
        ("grouped-f16", grouped().kv_storage(Storage::F16)),
        ("grouped-int8", grouped().kv_storage(Storage::Int8)),
        ("grouped-int4", grouped().kv_storage(Storage::Int4)),
        ("grouped-pages-16", in_pages(grouped(), 16)),
        ("batch-full", batch()),
    ]
    .into_iter()
    .map(dense)
    .collect();
    let ragged = Workload { name: "batch-ragged", ragged: true, ..dense(("", batch())) };
    workloads.push(ragged);
    workloads
}

fn standard() -> Vec<Workload> {
    let f16 = |batch, heads, seq, dim| {
        Attention::new(Shape::self_attention(batch, heads, seq, dim)).dtype(DType::F16)
    };
    let gqa = Shape { heads_kv: 8, ..Shape::self_attention(1, 32, 8192, 128) };
    let decode = Shape { seq_q: 1, ..Shape { batch: 16, seq_kv: 4096, ..gqa } };
    [
        ("bert-base", f16(8, 12, 128, 64)),
        ("gpt2", f16(4, 12, 1024, 64).causal(Align::TopLeft)),
        ("llama", f16(4, 32, 2048, 128).causal(Align::TopLeft)),
        ("llama-gqa", Attention::new(gqa).dtype(DType::F16).causal(Align::TopLeft)),
        ("long", f16(1, 16, 4096, 128)),
        ("long-f32", Attention::new(Shape::self_attention(1, 16, 4096, 128))),
        ("wide", f16(1, 8, 4096, 256)),
        ("decode", Attention::new(decode).dtype(DType::F16)),
    ]
    .into_iter()
    .map(dense)
    .collect()
}
