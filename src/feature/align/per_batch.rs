//! One offset per sequence, from a table.

use crate::feature::{Operands, Slot, slot};

pub(crate) const SLOT: Slot = slot!("align", "per_batch");

pub(super) fn diagonal(batch: u32, operands: &Operands<'_>) -> i64 {
    i64::from(operands.offsets[batch as usize].clamp(-super::MAX_OFFSET, super::MAX_OFFSET))
}
