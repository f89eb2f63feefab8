//! Where the diagonal of causal masks and windows lies when seq_q ≠ seq_kv.
//!
//! Libraries disagree, so there is no default: the key on the diagonal of row i is
//! `i + diagonal`, and the variant says what the diagonal is.

pub mod bottom_right;
pub mod offset;
pub mod per_batch;
pub mod top_left;

use std::fmt;

use super::{Operands, Setting, Slot};
use crate::error::{Error, Result};

/// The WGSL files.
pub(crate) const SLOTS: &[Slot] =
    &[top_left::SLOT, bottom_right::SLOT, offset::SLOT, per_batch::SLOT];

/// Largest absolute offset: keeps position arithmetic within i32 on the GPU.
pub const MAX_OFFSET: i32 = 1 << 28;

/// The alignment of the diagonal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Align {
    /// Row 0 meets key 0: PyTorch's `is_causal`, JAX, ONNX without a cache.
    TopLeft,
    /// The last row meets the last key, by each sequence's own lengths: FlashAttention ≥ 2.1.
    BottomRight,
    /// A given offset, such as the length of the past; may be negative.
    Offset(i32),
    /// An offset per sequence, given with the tensors.
    PerBatch,
}

impl fmt::Display for Align {
    /// `top-left`, `bottom-right`, `per-batch` or the offset.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TopLeft => f.pad("top-left"),
            Self::BottomRight => f.pad("bottom-right"),
            Self::Offset(n) => n.fmt(f),
            Self::PerBatch => f.pad("per-batch"),
        }
    }
}

impl Align {
    /// The diagonal of one sequence.
    pub fn diagonal(self, batch: u32, q_len: u32, kv_len: u32, operands: &Operands<'_>) -> i64 {
        match self {
            Self::TopLeft => top_left::diagonal(),
            Self::BottomRight => bottom_right::diagonal(q_len, kv_len),
            Self::Offset(n) => offset::diagonal(n),
            Self::PerBatch => per_batch::diagonal(batch, operands),
        }
    }

    /// The offset where it is given, 0 where it follows from lengths or tables.
    pub(crate) fn given(self) -> i32 {
        match self {
            Self::Offset(n) => n,
            Self::TopLeft | Self::BottomRight | Self::PerBatch => 0,
        }
    }

    /// The same with the self-test's own offset, under which some rows see nothing.
    pub(crate) fn known(self) -> Self {
        match self {
            Self::Offset(_) => Self::Offset(-5),
            Self::TopLeft | Self::BottomRight | Self::PerBatch => self,
        }
    }

    /// Keeps position arithmetic within i32.
    pub(crate) fn validate(self) -> Result<()> {
        let offset = self.given();
        if offset.unsigned_abs() > MAX_OFFSET.unsigned_abs() {
            return Err(Error::invalid(
                "alignment offset",
                offset,
                format!("±{MAX_OFFSET} at most"),
            ));
        }
        Ok(())
    }

    /// The values of the slot's parameters.
    pub(crate) fn parameters(self) -> Vec<Setting> {
        vec![offset::DIAGONAL.is(self.given())]
    }

    /// The WGSL file that says the same.
    pub fn slot(self) -> Slot {
        match self {
            Self::TopLeft => top_left::SLOT,
            Self::BottomRight => bottom_right::SLOT,
            Self::Offset(_) => offset::SLOT,
            Self::PerBatch => per_batch::SLOT,
        }
    }
}
