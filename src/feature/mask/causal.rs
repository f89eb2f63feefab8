//! Key j is visible to row i iff j ≤ i + diagonal.

use std::ops::Range;

use super::{Kind, Mask};
use crate::feature::align::Align;
use crate::feature::{Operands, Position, Slot, slot};
use crate::tensor::Shape;

pub(crate) const SLOT: Slot = slot!("mask", "causal").narrowing();

/// No key after the diagonal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Causal {
    /// Where the diagonal lies.
    pub align: Align,
}

impl Mask for Causal {
    fn slot(&self) -> Slot {
        SLOT
    }

    fn text(&self) -> String {
        format!("causal({})", self.align)
    }

    fn align(&self) -> Option<Align> {
        Some(self.align)
    }

    fn keeps(&self, at: &Position, _: &Operands<'_>, _: &Shape) -> bool {
        i64::from(at.key) <= i64::from(at.row) + at.diagonal
    }

    fn narrow(&self, row: u32, diagonal: i64, keys: Range<i64>) -> Range<i64> {
        keys.start..keys.end.min(i64::from(row) + diagonal + 1)
    }
}

impl Kind for Causal {
    fn examples(_: &Shape) -> Vec<Self> {
        vec![Self { align: Align::BottomRight }, Self { align: Align::Offset(-3) }]
    }

    fn known(self, _: &Shape) -> Self {
        Self { align: self.align.known() }
    }
}
