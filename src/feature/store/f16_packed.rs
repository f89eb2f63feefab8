//! binary16, two to a 32-bit word; no device feature.

use super::Store;
use crate::feature::{Slot, slot};

pub(crate) const SLOT: Slot = slot!("store", "f16_packed");

/// binary16, two to a 32-bit word; no device feature.
pub const STORE: Store =
    Store { slot: SLOT, word4: "vec2<u32>", word1: "u32", halves: true, needs_f16: false };
