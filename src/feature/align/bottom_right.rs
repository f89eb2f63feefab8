//! The last row meets the last key of its own sequence.

use crate::feature::{Slot, slot};

pub(crate) const SLOT: Slot = slot!("align", "bottom_right");

pub(super) fn diagonal(q_len: u32, kv_len: u32) -> i64 {
    i64::from(kv_len) - i64::from(q_len)
}
