//! Key j is visible to row i iff i + diagonal − left ≤ j ≤ i + diagonal + right, both inclusive.

use std::ops::Range;

use super::{Kind, Mask};
use crate::feature::align::{Align, MAX_OFFSET};
use crate::feature::{Operands, Parameter, Position, Setting, Slot, slot};
use crate::tensor::Shape;

/// Visible keys before and after the diagonal; `UNBOUNDED` where a side is open.
const LEFT: Parameter = Parameter::i32("window_left");
const RIGHT: Parameter = Parameter::i32("window_right");

/// Further than any diagonal is shifted.
const UNBOUNDED: i32 = 2 * MAX_OFFSET;

pub(crate) const SLOT: Slot =
    slot!("mask", "window", LEFT, RIGHT).narrowing().titled("sliding window");

/// Keys near the diagonal; `None` leaves a side unbounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Window {
    /// Keys before the diagonal that are visible.
    pub left: Option<u32>,
    /// Keys after the diagonal that are visible.
    pub right: Option<u32>,
    /// Where the diagonal lies; causal's where there is one.
    pub align: Align,
}

impl Mask for Window {
    fn slot(&self) -> Slot {
        SLOT
    }

    fn text(&self) -> String {
        let side = |n: Option<u32>| n.map_or("-".into(), |n| n.to_string());
        format!("window({},{},{})", side(self.left), side(self.right), self.align)
    }

    fn align(&self) -> Option<Align> {
        Some(self.align)
    }

    fn parameters(&self, _: &Shape) -> Vec<Setting> {
        let side = |n: Option<u32>| {
            n.map_or(UNBOUNDED, |n| i32::try_from(n).unwrap_or(i32::MAX).min(UNBOUNDED))
        };
        vec![LEFT.is(side(self.left)), RIGHT.is(side(self.right))]
    }

    fn keeps(&self, at: &Position, _: &Operands<'_>, _: &Shape) -> bool {
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

    fn reach(&self) -> Option<u32> {
        Some(self.left?.saturating_add(self.right?))
    }
}

impl Kind for Window {
    fn examples(_: &Shape) -> Vec<Self> {
        let one = |left, right| Self { left, right, align: Align::TopLeft };
        vec![one(Some(3), Some(1)), one(Some(2), None), one(None, Some(2))]
    }

    fn known(self, _: &Shape) -> Self {
        let Self { left, right, align } = self;
        Self { left: left.map(|_| 20), right: right.map(|_| 11), align: align.known() }
    }
}
