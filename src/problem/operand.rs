//! The tensors of a call, by name.

use std::fmt;

/// Every tensor of a call, by its name in messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operand {
    /// Queries.
    Q,
    /// Keys.
    K,
    /// Values.
    V,
    /// Output.
    O,
    /// Log-sum-exp output.
    Lse,
    /// Scores or weights output.
    Weights,
    /// Boolean mask.
    Mask,
    /// Additive bias.
    Bias,
    /// ALiBi slopes.
    AlibiSlopes,
    /// Sinks.
    Sinks,
    /// Key lengths.
    KvLengths,
    /// Query lengths.
    QLengths,
    /// Alignment offsets per sequence.
    Offsets,
    /// First query row of each packed sequence, and their total.
    CuSeqlensQ,
    /// First key of each packed sequence, and their total.
    CuSeqlensKv,
    /// Weights of the additive score.
    ScoreV,
    /// Cosines of the rotary angles.
    RotaryCos,
    /// Sines of the rotary angles.
    RotarySin,
    /// Factors of the cosine score.
    HeadScale,
    /// Matrix of the general score.
    ScoreMatrix,
    /// Biases by relative position.
    Relative,
    /// Centers of local attention.
    Centers,
    /// First edge of each query row.
    EdgeStarts,
    /// Key of each edge.
    EdgeKeys,
    /// Bias of each edge.
    EdgeBias,
    /// Rotary positions.
    Positions,
    /// Segment ids of query rows.
    SegmentsQ,
    /// Segment ids of keys.
    SegmentsKv,
    /// Page of each run of `page_size` keys.
    PageTable,
    /// Block table.
    Blocks,
    /// Words for the caller's own functions.
    Table,
}

impl Operand {
    /// The name used in messages and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q => "q",
            Self::K => "k",
            Self::V => "v",
            Self::O => "o",
            Self::Lse => "lse",
            Self::Weights => "weights",
            Self::Mask => "mask",
            Self::Bias => "bias",
            Self::AlibiSlopes => "alibi_slopes",
            Self::Sinks => "sinks",
            Self::KvLengths => "kv_lengths",
            Self::QLengths => "q_lengths",
            Self::Offsets => "offsets",
            Self::CuSeqlensQ => "cu_seqlens_q",
            Self::CuSeqlensKv => "cu_seqlens_kv",
            Self::ScoreV => "score_v",
            Self::RotaryCos => "rotary_cos",
            Self::RotarySin => "rotary_sin",
            Self::HeadScale => "head_scale",
            Self::ScoreMatrix => "score_matrix",
            Self::Relative => "relative",
            Self::Centers => "centers",
            Self::EdgeStarts => "edge_starts",
            Self::EdgeKeys => "edge_keys",
            Self::EdgeBias => "edge_bias",
            Self::Positions => "positions",
            Self::SegmentsQ => "segments_q",
            Self::SegmentsKv => "segments_kv",
            Self::PageTable => "page_table",
            Self::Blocks => "blocks",
            Self::Table => "table",
        }
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
