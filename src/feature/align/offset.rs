//! One given offset for the whole batch.

use crate::feature::{Parameter, Slot, slot};

/// The offset of causal masks and windows; ALiBi's is a parameter of its own.
pub(super) const DIAGONAL: Parameter = Parameter::i32("diagonal_offset");

pub(crate) const SLOT: Slot = slot!("align", "offset", DIAGONAL);

pub(super) fn diagonal(offset: i32) -> i64 {
    i64::from(offset)
}
