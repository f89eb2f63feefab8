//! Row 0 meets key 0.

use crate::feature::{Slot, slot};

pub(crate) const SLOT: Slot = slot!("align", "top_left");

pub(super) fn diagonal() -> i64 {
    0
}
