//! 8 bits, 5 of exponent and 2 of significand; see [`Storage::E5m2`](crate::Storage::E5m2).

use super::Load;
use crate::feature::{Slot, slot};

pub(crate) const SLOT: Slot = slot!("load", "e5m2");

/// 8 bits, 5 of exponent and 2 of significand; see [`Storage::E5m2`](crate::Storage::E5m2).
pub const LOAD: Load =
    Load { slot: SLOT, word4: "u32", word1: "u32", word1_log2: 2, needs_f16: false };
