//! The binding registry: every resource has one number in every kernel; an absent one leaves a hole.

use crate::problem::Operand;

/// A resource of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Binding {
    /// The parameter block.
    Params = 0,
    /// Queries; the rows that a kernel beside attention reads.
    Q = 1,
    /// Keys.
    K = 2,
    /// Values.
    V = 3,
    /// Output; in `fused_backward_delta` that of the forward pass.
    O = 4,
    /// Log-sum-exp, written by the forward pass and read by gradients.
    Lse = 5,
    /// Scores or weights output.
    Weights = 6,
    /// Boolean mask, four bytes to a word.
    Mask = 7,
    /// Additive bias.
    Bias = 8,
    /// Small tables, one after another: slopes, sinks, lengths, offsets.
    Aux = 9,
    /// Scratch: a block of score rows.
    Scores = 10,
    /// Scratch: one reciprocal per row of the block.
    InverseSums = 11,
    /// Scratch: partial sums of o when keys are split over dispatches.
    Carry = 12,
    /// Scratch: sums of o over shares of the keys.
    Partials = 13,
    /// Scratch: the normaliser's state of each share; of gradients what is kept of each row.
    States = 14,
    /// Cosines and sines of rotary angles, where they are not in `aux`.
    Angles = 15,
    /// Log-sum-exp of partial results that are joined.
    PartsLse = 16,
    /// Matrix of a linear layer.
    Projection = 17,
    /// Scratch of gradients: a block of rows of those of weights, then of scores.
    Grads = 18,
    /// Scratch of gradients: those of scores as biases were added to them.
    Entries = 19,
    /// Scratch of gradients: those of each row's sink.
    RowSums = 20,
    /// Gradient of lse.
    DLse = 21,
    /// Gradient of the returned weights.
    DWeights = 22,
    /// Gradient of a tensor of f32.
    DTable = 23,
    /// Scratch of gradients: what each row has in those of its centre.
    CenterSums = 24,
    /// Gradient of o.
    DO = 25,
    /// Gradient of v where that of k is the output.
    DV = 26,
}

/// How a kernel uses a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// A uniform.
    Uniform,
    /// Never written.
    Read,
    /// Written (and perhaps read).
    ReadWrite,
}

/// A resource as the bind group layout declares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BindingKind {
    /// Which resource.
    pub binding: Binding,
    /// Read or written.
    pub access: Access,
}

impl Binding {
    /// The WGSL variable.
    pub fn name(self) -> &'static str {
        match self {
            Self::Params => "params",
            Self::Q => "q",
            Self::K => "k",
            Self::V => "v",
            Self::O => "o",
            Self::Lse => "lse",
            Self::Weights => "weights",
            Self::Mask => "mask",
            Self::Bias => "bias",
            Self::Aux => "aux",
            Self::Scores => "scores",
            Self::InverseSums => "inverse_sums",
            Self::Carry => "carry",
            Self::Partials => "partials",
            Self::States => "states",
            Self::Angles => "angles",
            Self::PartsLse => "parts_lse",
            Self::Projection => "projection",
            Self::Grads => "grads",
            Self::Entries => "entries",
            Self::RowSums => "row_sums",
            Self::DLse => "d_lse",
            Self::DWeights => "d_weights",
            Self::DTable => "d_table",
            Self::CenterSums => "center_sums",
            Self::DO => "d_o",
            Self::DV => "d_v",
        }
    }

    /// The tensor of the caller's that it holds in a kernel of attention; `None` for scratch, tables and parameters.
    pub(crate) fn operand(self) -> Option<Operand> {
        match self {
            Self::Q => Some(Operand::Q),
            Self::K => Some(Operand::K),
            Self::V => Some(Operand::V),
            Self::O => Some(Operand::O),
            Self::Lse => Some(Operand::Lse),
            Self::Weights => Some(Operand::Weights),
            Self::Mask => Some(Operand::Mask),
            Self::Bias => Some(Operand::Bias),
            Self::Params | Self::Aux | Self::Angles | Self::PartsLse | Self::Projection => None,
            Self::Scores | Self::InverseSums | Self::Carry | Self::Partials | Self::States => None,
            Self::Grads | Self::Entries | Self::RowSums | Self::CenterSums => None,
            Self::DLse | Self::DWeights | Self::DTable | Self::DO | Self::DV => None,
        }
    }

    /// The number in `@binding`.
    pub fn number(self) -> u32 {
        self as u32
    }
}
