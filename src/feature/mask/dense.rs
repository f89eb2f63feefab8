//! `mask[b, h, i, j]`, one byte each, broadcast over any of the four dimensions; nonzero = attend.

use std::ops::Range;

use super::Mask;
use crate::feature::{Operands, Position, Slot, slot};
use crate::tensor::Broadcast;

pub(crate) const SLOT: Slot = slot!("mask", "dense");

/// A boolean tensor of the given broadcast shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Dense(pub Broadcast);

impl Mask for Dense {
    fn slot(&self) -> Slot {
        SLOT
    }

    fn keeps(&self, at: &Position, operands: &Operands<'_>) -> bool {
        operands.mask[self.0.index([at.batch, at.head, at.row, at.key])]
    }

    fn narrow(&self, _: u32, _: i64, keys: Range<i64>) -> Range<i64> {
        keys
    }
}
