//! Key j is visible to row i iff i + diagonal and j lie in the same chunk.

use std::ops::Range;

use super::Mask;
use crate::feature::{Operands, Parameter, Position, Setting, Slot, slot};

/// Positions of a chunk.
const CHUNK: Parameter = Parameter::i32("chunk");

pub(crate) const SLOT: Slot = slot!("mask", "chunked", CHUNK).narrowing();

/// Chunks of n positions that do not see each other: blockwise attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Chunked(pub u32);

impl Mask for Chunked {
    fn slot(&self) -> Slot {
        SLOT
    }

    fn parameters(&self) -> Vec<Setting> {
        vec![CHUNK.is(self.0 as i32)]
    }

    fn keeps(&self, at: &Position, _: &Operands<'_>) -> bool {
        let size = i64::from(self.0);
        (i64::from(at.row) + at.diagonal).div_euclid(size) == i64::from(at.key).div_euclid(size)
    }

    fn narrow(&self, row: u32, diagonal: i64, keys: Range<i64>) -> Range<i64> {
        let size = i64::from(self.0);
        let start = (i64::from(row) + diagonal).div_euclid(size) * size;
        keys.start.max(start)..keys.end.min(start + size)
    }
}
