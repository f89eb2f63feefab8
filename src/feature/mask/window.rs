//! Key j is visible to row i iff i + diagonal − left ≤ j ≤ i + diagonal + right, both inclusive.

use std::ops::Range;

use super::Mask;
use crate::feature::{Operands, Position, Slot, slot};

pub(crate) const SLOT: Slot = slot!("mask", "window");

/// Keys near the diagonal; `None` leaves a side unbounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Window {
    /// Keys before the diagonal that are visible.
    pub left: Option<u32>,
    /// Keys after the diagonal that are visible.
    pub right: Option<u32>,
}

impl Mask for Window {
    fn slot(&self) -> Slot {
        SLOT
    }

    fn keeps(&self, at: &Position, _: &Operands<'_>) -> bool {
        let distance = i64::from(at.key) - i64::from(at.row) - at.diagonal;
        self.left.is_none_or(|left| distance >= -i64::from(left))
            && self.right.is_none_or(|right| distance <= i64::from(right))
    }

    fn narrow(&self, row: u32, diagonal: i64, keys: Range<i64>) -> Range<i64> {
        let center = i64::from(row) + diagonal;
        let start = self.left.map_or(keys.start, |left| keys.start.max(center - i64::from(left)));
        let end = self.right.map_or(keys.end, |right| keys.end.min(center + i64::from(right) + 1));
        start..end
    }
}
