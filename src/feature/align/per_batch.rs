//! One offset per sequence, from a table; 0 for what the table does not hold.

use crate::feature::{Operand, Operands, Slot, slot};

pub(crate) const SLOT: Slot = slot!("align", "per_batch").reading(&[Operand::Offsets]);

pub(super) fn diagonal(batch: u32, operands: &Operands<'_>) -> i64 {
    let offset = operands.offsets.get(batch as usize).copied().unwrap_or(0);
    i64::from(offset.clamp(-super::MAX_OFFSET, super::MAX_OFFSET))
}
