//! What attention means: one small file per behaviour, the twin of `shaders/slot`.
//!
//! A feature is its descriptor (plain data), its meaning on the CPU in f64, and the name of the
//! WGSL file that says the same on the GPU. The order of evaluation is fixed:
//! scale → softcap → bias → ALiBi → masks → normaliser → weighted sum of v. A masked key is
//! selected away, never multiplied by zero, so NaN or Inf under a mask cannot leak.

use std::borrow::Cow;

pub mod align;
pub mod custom;
pub mod inner;
pub mod load;
pub mod mask;
pub mod normalize;
pub mod prepare;
pub mod score;
pub mod store;

/// One WGSL slot file: a behaviour as the composer sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot {
    /// Folder under `shaders/slot`, e.g. `mask`.
    pub kind: &'static str,
    /// File stem, e.g. `causal`; its functions are called `{kind}_{name}…`.
    pub name: Cow<'static, str>,
    /// The file's text.
    pub source: Cow<'static, str>,
    /// Whether it is the caller's own.
    pub custom: bool,
}

impl Slot {
    /// Path below `shaders/`, as compiler messages show it.
    pub fn path(&self) -> String {
        let folder = if self.custom { "custom" } else { "slot" };
        format!("{folder}/{}/{}.wgsl", self.kind, self.name)
    }

    /// Name of the slot's main function.
    pub fn function(&self) -> String {
        format!("{}_{}", self.kind, self.name)
    }
}

/// Declares the slot whose file is `shaders/slot/{kind}/{name}.wgsl`.
macro_rules! slot {
    ($kind:literal, $name:literal) => {
        $crate::feature::Slot {
            kind: $kind,
            name: std::borrow::Cow::Borrowed($name),
            source: std::borrow::Cow::Borrowed(include_str!(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/shaders/slot/",
                $kind,
                "/",
                $name,
                ".wgsl"
            ))),
            custom: false,
        }
    };
}
pub(crate) use slot;

/// Every slot file there is; a test compares this with the `shaders/slot` directory.
pub const REGISTRY: &[Slot] = &[
    load::f32::SLOT,
    load::f16::SLOT,
    load::f16_packed::SLOT,
    load::bf16_packed::SLOT,
    load::int8::SLOT,
    load::int4::SLOT,
    store::f32::SLOT,
    store::f16::SLOT,
    store::f16_packed::SLOT,
    store::bf16_packed::SLOT,
    align::top_left::SLOT,
    align::bottom_right::SLOT,
    align::offset::SLOT,
    align::per_batch::SLOT,
    inner::product::SLOT,
    inner::sum::SLOT,
    inner::tanh::SLOT,
    inner::leaky_relu::SLOT,
    score::scale::SLOT,
    score::softcap::SLOT,
    score::bias::SLOT,
    score::alibi::SLOT,
    score::edges::SLOT,
    score::gumbel::SLOT,
    score::relative::SLOT,
    mask::causal::SLOT,
    mask::window::SLOT,
    mask::dense::SLOT,
    mask::chunked::SLOT,
    mask::dilated::SLOT,
    mask::edges::SLOT,
    mask::local::SLOT,
    mask::neighborhood::SLOT,
    mask::segments::SLOT,
    mask::blocks::SLOT,
    normalize::softmax::SLOT,
    normalize::sink::SLOT,
    normalize::relu::SLOT,
    normalize::sigmoid::SLOT,
    normalize::hard::SLOT,
    normalize::monotonic::SLOT,
    normalize::sparsemax::SLOT,
    normalize::entmax15::SLOT,
    normalize::raw::SLOT,
];

/// One (query row, key) pair and what masks and score modifiers may know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Sequence of the batch.
    pub batch: u32,
    /// Query head.
    pub head: u32,
    /// Query row i.
    pub row: u32,
    /// Key j, counted with past keys.
    pub key: u32,
    /// Query rows of this sequence (`seq_q`, or its entry of the length table).
    pub q_len: u32,
    /// Keys of this sequence (`seq_kv`, or its entry of the length table).
    pub kv_len: u32,
    /// Alignment offset: the key on the diagonal of row i is i + diagonal.
    pub diagonal: i64,
}

/// The small and broadcast tensors that features read, on the CPU.
///
/// An operand that the problem does not name is an empty slice.
#[derive(Debug, Clone, Copy, Default)]
pub struct Operands<'a> {
    /// Boolean mask, true = attend, of the problem's mask shape.
    pub mask: &'a [bool],
    /// Additive bias of the problem's bias shape; −∞ masks.
    pub bias: &'a [f64],
    /// One slope per query head.
    pub alibi_slopes: &'a [f64],
    /// One extra logit per query head, in the denominator only.
    pub sinks: &'a [f64],
    /// Keys of each sequence.
    pub kv_lengths: &'a [u32],
    /// Query rows of each sequence.
    pub q_lengths: &'a [u32],
    /// Alignment offset of each sequence.
    pub offsets: &'a [i32],
    /// First query row of each packed sequence, and their total.
    pub cu_seqlens_q: &'a [u32],
    /// First key of each packed sequence, and their total.
    pub cu_seqlens_kv: &'a [u32],
    /// Weights of the additive score, `[dim_qk]`.
    pub score_v: &'a [f64],
    /// Cosines of the rotary angles, `[table_rows, dim / 2]`.
    pub rotary_cos: &'a [f64],
    /// Sines of the rotary angles, `[table_rows, dim / 2]`.
    pub rotary_sin: &'a [f64],
    /// Factors of the cosine score, `[heads_q]`.
    pub head_scale: &'a [f64],
    /// Matrix of the general score, `[dim_q, dim_qk]`.
    pub score_matrix: &'a [f64],
    /// Biases by relative position, `[heads_q, left + 1 + right]`.
    pub relative: &'a [f64],
    /// Centers of local attention, `[batch, seq_q]`.
    pub centers: &'a [f64],
    /// First edge of each query row, `[seq_q + 1]`.
    pub edge_starts: &'a [u32],
    /// Key of each edge.
    pub edge_keys: &'a [u32],
    /// Bias of each edge.
    pub edge_bias: &'a [f64],
    /// Rotary positions, `[batch, seq_q]`.
    pub positions: &'a [u32],
    /// Segment id of each query row, `[batch, seq_q]`.
    pub segments_q: &'a [u32],
    /// Segment id of each key, `[batch, seq_kv]`.
    pub segments_kv: &'a [u32],
    /// Page of each run of keys, `[batch, row]`.
    pub page_table: &'a [u32],
    /// The block table; [`Blocks`](mask::Blocks) says what is in it.
    pub blocks: &'a [u32],
    /// Words for the caller's own functions; closures have their own copy.
    pub table: &'a [u32],
}
