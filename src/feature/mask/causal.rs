//! Key j is visible to row i iff j ≤ i + diagonal.

use std::ops::Range;

use super::Mask;
use crate::feature::{Operands, Position, Slot, slot};

pub(crate) const SLOT: Slot = slot!("mask", "causal").narrowing();

/// No key after the diagonal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Causal;

impl Mask for Causal {
    fn slot(&self) -> Slot {
        SLOT
    }

    fn keeps(&self, at: &Position, _: &Operands<'_>) -> bool {
        i64::from(at.key) <= i64::from(at.row) + at.diagonal
    }

    fn narrow(&self, row: u32, diagonal: i64, keys: Range<i64>) -> Range<i64> {
        keys.start..keys.end.min(i64::from(row) + diagonal + 1)
    }
}
