//! binary16, two to a 32-bit word; no device feature.

use super::Load;
use crate::feature::{Slot, slot};

pub(crate) const SLOT: Slot = slot!("load", "f16_packed");

/// binary16, two to a 32-bit word; no device feature.
pub const LOAD: Load =
    Load { slot: SLOT, word4: "vec2<u32>", word1: "u32", word1_log2: 1, needs_f16: false };
