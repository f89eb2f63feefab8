//! One given offset for the whole batch.

use crate::feature::{Slot, slot};

pub(crate) const SLOT: Slot = slot!("align", "offset");

pub(super) fn diagonal(offset: i32) -> i64 {
    i64::from(offset)
}
