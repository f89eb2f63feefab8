//! Key j is visible to row i iff i + diagonal and j lie in the same chunk.

use std::ops::Range;

use super::{Kind, Mask, positions};
use crate::error::Result;
use crate::feature::align::Align;
use crate::feature::{Operands, Parameter, Position, Setting, Slot, slot};
use crate::tensor::Shape;

/// Positions of a chunk.
const CHUNK: Parameter = Parameter::i32("chunk");

pub(crate) const SLOT: Slot = slot!("mask", "chunked", CHUNK).narrowing();

/// Chunks of positions that do not see each other: blockwise attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Chunked {
    /// Positions of a chunk.
    pub size: u32,
    /// Where the diagonal lies along which rows are counted.
    pub align: Align,
}

impl Mask for Chunked {
    fn slot(&self) -> Slot {
        SLOT
    }

    fn text(&self) -> String {
        format!("chunked({},{})", self.size, self.align)
    }

    fn align(&self) -> Option<Align> {
        Some(self.align)
    }

    fn validate(&self, _: &Shape) -> Result<()> {
        positions("chunked", self.size)
    }

    fn parameters(&self, _: &Shape) -> Vec<Setting> {
        vec![CHUNK.is(self.size as i32)]
    }

    fn keeps(&self, at: &Position, _: &Operands<'_>, _: &Shape) -> bool {
        let size = i64::from(self.size);
        (i64::from(at.row) + at.diagonal).div_euclid(size) == i64::from(at.key).div_euclid(size)
    }

    fn narrow(&self, row: u32, diagonal: i64, keys: Range<i64>) -> Range<i64> {
        let size = i64::from(self.size);
        let start = (i64::from(row) + diagonal).div_euclid(size) * size;
        keys.start.max(start)..keys.end.min(start + size)
    }

    fn reach(&self) -> Option<u32> {
        Some(self.size)
    }
}

impl Kind for Chunked {
    fn examples(_: &Shape) -> Vec<Self> {
        vec![Self { size: 4, align: Align::TopLeft }]
    }

    fn known(self, _: &Shape) -> Self {
        Self { size: 13, align: self.align.known() }
    }
}
