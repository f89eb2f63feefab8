//! Cases for what went wrong elsewhere: in other attention kernels, in compilers and in drivers.
//!
//! Each is the smallest call at which the same mistake would show here. What cannot be a call of this library
//! (crashes of a query, pipeline creation, speed) is not here.

use crate::feature::align::Align::{BottomRight, Offset, PerBatch, TopLeft};
use crate::problem::Attention;
use crate::tensor::{DType, Layout, Storage};
use crate::verify::cases::cache::in_pages;
use crate::verify::cases::quick::call;
use crate::verify::cases::{Case, Seen, numeric, padded};
use crate::verify::data::{DataOptions, Lengths};

static HEAD_DIMS: Seen = Seen::new(
    "llama.cpp-28214",
    "PowerVR, subgroups of 128: wrong results and hangs at head dimensions 40, 72, 80 and 256",
);
static TURNS: Seen = Seen::new(
    "llama.cpp-24406",
    "Intel, Mesa 26.2: wrong results when workgroups of one core take different numbers of turns",
);
static STALE: Seen = Seen::new(
    "llama.cpp-26744",
    "AMD gfx11: adding −0 is not exact, so that stale rows of v behind a mask change the output",
);
static CAUSAL_HEADS: Seen =
    Seen::new("burn-4484", "Metal: causal attention gives zeros in every head but the first");
static WORKGROUP_MEMORY: Seen = Seen::new(
    "wgpu-4591",
    "AMD 5700XT: clearing of workgroup memory lacks a barrier, old values are read",
);
static OUT_OF_BOUNDS: Seen = Seen::new(
    "meganeura-8",
    "lavapipe: storage reads past the end return garbage, in half of the runs",
);
static SELECT_16: Seen = Seen::new("wgpu-5269", "lavapipe: LLVM refuses a select of 16-bit values");
static HIGH_BITS: Seen =
    Seen::new("wgpu-5318", "Adreno on GLES: the high bits of u32 are lost in comparisons");
static VALUE_OVERFLOW: Seen = Seen::new(
    "llama.cpp-15274",
    "f16 sums of weights and values overflow (gpt-oss: sinks, groups of 8)",
);
static SCORE_OVERFLOW: Seen = Seen::new("llama.cpp-20589", "f16 scores overflow (GLM-4)");
static LONG: Seen = Seen::new(
    "llama.cpp-28124",
    "f16 sums in spite of a request for f32: garbage past 50 000 keys",
);
static LOOPS: Seen = Seen::new(
    "llvmpipe-65535",
    "Mesa 22.3's software driver ends loops after 65 535 iterations, so that the last keys of longer rows are missing",
);
static MINUS_INFINITY: Seen = Seen::new(
    "llama.cpp-12776",
    "a running maximum that starts at −∞ gives NaN where the first keys are hidden",
);
static FINITE_SENTINEL: Seen = Seen::new(
    "flashinfer-4267",
    "a running maximum that starts at −5e4 silently zeroes rows whose scores are lower; 2.45e5 occurs in models",
);
static NAN_DROPPED: Seen = Seen::new(
    "lattice-790",
    "max() of WGSL drops NaN, and clamps hide it: a NaN that a row sees must show, in those rows alone",
);
static EMPTY_SHARE: Seen =
    Seen::new("pegainfer-21", "a share of the keys that is empty gives −∞ − (−∞)");
static SINK_TWICE: Seen =
    Seen::new("ck_tile-12227", "the sink is added in each share of the keys instead of once");
static SINK_OVERFLOW: Seen =
    Seen::new("TensorRT-LLM-19220", "exp(sink − maximum) overflows in rows that see nothing");
static BATCH: Seen = Seen::new("tfjs-6507", "zeros from sequence 131 on");
static WORKGROUPS: Seen =
    Seen::new("WebGPU-65535", "more workgroups in a row than a dispatch may have");
static LARGE_SCRATCH: Seen = Seen::new(
    "executorch-15651",
    "Adreno 750: more than 2^27 weights are silently wrong; scores must be made in blocks",
);
static MASK_AND_GROUPS: Seen =
    Seen::new("candle-3388", "NaN with a mask that is not square and groups");
static MASK_TWICE: Seen =
    Seen::new("candle-3625", "a causal mask that is applied twice beside another: 0/0 in its rows");
static GROUPS: Seen = Seen::new("onnxruntime-26064", "wrong results with grouped heads");
/// Everything that a case stands for.
pub static SEEN: &[&Seen] = &[
    &HEAD_DIMS,
    &TURNS,
    &STALE,
    &CAUSAL_HEADS,
    &WORKGROUP_MEMORY,
    &OUT_OF_BOUNDS,
    &SELECT_16,
    &HIGH_BITS,
    &VALUE_OVERFLOW,
    &SCORE_OVERFLOW,
    &LONG,
    &LOOPS,
    &MINUS_INFINITY,
    &FINITE_SENTINEL,
    &NAN_DROPPED,
    &EMPTY_SHARE,
    &SINK_TWICE,
    &SINK_OVERFLOW,
    &BATCH,
    &WORKGROUPS,
    &LARGE_SCRATCH,
    &MASK_AND_GROUPS,
    &MASK_TWICE,
    &GROUPS,
    &numeric::FAINT,
    &numeric::LOST,
    &numeric::LOWEST_BIAS,
    &numeric::SUBNORMAL,
    &numeric::OVERLAP,
];

const USUAL: DataOptions = DataOptions::USUAL;
const POISON: DataOptions = DataOptions { poison: true, ..USUAL };

pub(super) fn quick() -> Vec<Case> {
    let groups = [devices(), memory(), magnitudes(), shares(), masks()];
    groups.into_iter().flatten().chain(numeric::cases()).collect()
}

/// What is too large for the quick grid.
pub(super) fn full() -> Vec<Case> {
    // 277 MB of scores, more than a plan may use by default.
    let large = call(1, [16, 1], [2080, 2080], [4, 4]).causal(TopLeft).with_lse();
    // Seconds on the staged path of a software driver: a workgroup for a row.
    let many = call(65_537, [1, 1], [1, 2], [4, 4]);
    vec![Case::seen(large, USUAL, &LARGE_SCRATCH), Case::seen(many, USUAL, &WORKGROUPS)]
}

/// Head dimensions, groups, batches, uneven work.
fn devices() -> Vec<Case> {
    let mut cases = Vec::new();
    for (i, dim) in [40, 72, 80, 256].into_iter().enumerate() {
        let call = call(1, [2, 1], [9, 70], [dim, dim]).dtype([DType::F32, DType::F16][i % 2]);
        cases.push(Case::seen(call.causal(BottomRight).with_lse(), USUAL, &HEAD_DIMS));
    }
    for group in [6, 7, 12, 16, 20, 32] {
        let call = call(1, [2 * group, 2], [1, 65], [32, 32]).with_lse();
        cases.push(Case::seen(call, USUAL, &GROUPS));
    }
    let uneven = call(3, [2, 1], [37, 200], [64, 64]).causal(PerBatch).kv_lengths().q_lengths();
    let heads = call(2, [8, 8], [40, 40], [32, 32]).causal(TopLeft).layout(Layout::Bshd);
    cases.extend([
        Case::seen(uneven.with_lse(), POISON, &TURNS),
        Case::seen(heads, USUAL, &CAUSAL_HEADS),
        Case::seen(call(133, [2, 1], [3, 5], [8, 8]).with_lse(), USUAL, &BATCH),
    ]);
    cases
}

/// What lies where nothing may look, and bits that get lost.
fn memory() -> Vec<Case> {
    let stale = DataOptions { stale: true, ..USUAL };
    let high = DataOptions { high_bits: true, ..USUAL };
    let mut cases = Vec::new();
    // The variants are those of other cases, so that nothing more is compiled.
    for dtype in DType::ALL {
        let many = call(2, [2, 1], [33, 70], [64, 64]).dtype(dtype).with_lse();
        cases.push(Case::seen(many.causal(Offset(-3)).kv_lengths(), stale, &STALE));
    }
    for dtype in [DType::F32, DType::F16] {
        let few = call(2, [4, 2], [3, 150], [64, 64]).dtype(dtype).with_lse();
        cases.push(Case::seen(few.mask([2, 1, 1, 150]), stale, &STALE));
    }
    let cache = call(3, [4, 2], [2, 70], [64, 64]).kv_storage(Storage::F16).causal(BottomRight);
    let partly_filled = call(2, [2, 1], [17, 66], [3, 5]).kv_lengths().with_lse();
    let odd = padded(call(2, [2, 1], [19, 67], [33, 33]).with_lse(), 1);
    let halves = call(1, [2, 1], [9, 70], [5, 5]).dtype(DType::F16).mask([1, 1, 9, 70]);
    let segments = call(3, [2, 1], [9, 70], [8, 8]).segments().with_lse();
    cases.extend([
        Case::seen(in_pages(cache, 16), stale, &STALE),
        Case::seen(partly_filled, POISON, &WORKGROUP_MEMORY),
        Case::seen(odd, POISON, &OUT_OF_BOUNDS),
        Case::seen(halves, POISON, &SELECT_16),
        Case::seen(segments, high, &HIGH_BITS),
    ]);
    cases
}

/// Scores and values beyond what narrow types and sentinels hold.
fn magnitudes() -> Vec<Case> {
    let of = |logits: f64, values: f64| DataOptions { logits, values, ..USUAL };
    let half = |seq, heads| call(2, heads, seq, [64, 64]).dtype(DType::F16).with_lse();
    let mut cases = vec![
        Case::seen(half([3, 300], [8, 1]).sinks(), of(0.0, 6e4), &VALUE_OVERFLOW),
        Case::seen(half([3, 150], [4, 2]), of(1e5, 1.0), &SCORE_OVERFLOW),
        Case::seen(half([33, 70], [4, 2]), of(7e4, 1.0), &SCORE_OVERFLOW),
    ];
    for dtype in [DType::F32, DType::F16] {
        let long = call(1, [2, 1], [1, 51_000], [8, 8]).dtype(dtype).with_lse();
        cases.push(Case::seen(long, USUAL, &LONG));
    }
    // Keys that a driver's loops cannot count; the window keeps one of them short again.
    for seq_q in [1, 20] {
        let many = call(1, [1, 1], [seq_q, 66_000], [8, 8]).with_lse();
        cases.push(Case::seen(many.clone(), USUAL, &LOOPS));
        let few = many.window(Some(100), Some(3), Offset(65_000));
        cases.push(Case::seen(few, USUAL, &LOOPS));
    }
    // One key or two: half of the rows have nothing but scores far below any sentinel.
    let few = [([9, 1], DType::F32), ([9, 1], DType::Bf16), ([9, 2], DType::F32)];
    for (seq, dtype) in few.into_iter().chain([([33, 70], DType::Bf16)]) {
        let call = call(2, [4, 2], seq, [64, 64]).dtype(dtype).causal(TopLeft).with_lse();
        cases.push(Case::seen(call, of(2.45e5, 1.0), &FINITE_SENTINEL));
    }
    cases
}

/// Keys shared out over workgroups: one sequence and one group, so that there are as many shares as can be.
fn shares() -> Vec<Case> {
    let one = || call(1, [2, 1], [1, 1025], [64, 64]).with_lse();
    let several = || call(3, [2, 1], [2, 1025], [32, 32]).kv_lengths().with_lse();
    let sinks = |sinks, lengths| DataOptions { sinks, lengths, ..POISON };
    let partial = DataOptions { lengths: Lengths::Partial, ..POISON };
    vec![
        Case::seen(one(), DataOptions { logits: 8.0, ..USUAL }, &EMPTY_SHARE),
        Case::seen(one().kv_lengths(), partial, &EMPTY_SHARE),
        Case::seen(one().mask([1, 1, 1, 1025]), POISON, &EMPTY_SHARE),
        Case::seen(several(), POISON, &EMPTY_SHARE),
        Case::seen(one().sinks(), sinks(10.0, Lengths::Mixed), &SINK_TWICE),
        Case::seen(several().sinks(), sinks(10.0, Lengths::Mixed), &SINK_TWICE),
        Case::seen(several().sinks(), sinks(100.0, Lengths::Mixed), &SINK_OVERFLOW),
        Case::seen(several().sinks(), sinks(100.0, Lengths::Zero), &SINK_OVERFLOW),
    ]
}

/// Masks beside groups and causality, and a NaN that some rows see.
fn masks() -> Vec<Case> {
    let special = DataOptions { special: true, ..USUAL };
    let first_hidden = call(1, [2, 1], [90, 200], [32, 32]).dtype(DType::F16).with_lse();
    let not_square = call(1, [4, 2], [7, 33], [32, 32]).with_lse();
    let seen_by_some: [Attention; 3] = [
        call(2, [4, 2], [37, 70], [16, 24]).mask([2, 1, 37, 70]),
        call(2, [4, 2], [5, 70], [16, 24]).mask([2, 4, 5, 70]),
        call(2, [2, 1], [65, 65], [64, 64]).causal(Offset(-5)),
    ];
    let mut cases = vec![
        Case::seen(first_hidden.mask([1, 1, 90, 200]), USUAL, &MINUS_INFINITY),
        Case::seen(not_square.clone().mask([1, 1, 7, 33]), POISON, &MASK_AND_GROUPS),
        Case::seen(not_square.mask([1, 4, 7, 33]).causal(Offset(-3)), POISON, &MASK_TWICE),
    ];
    cases.extend(seen_by_some.map(|call| Case::seen(call.with_lse(), special, &NAN_DROPPED)));
    cases
}
