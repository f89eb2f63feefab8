//! 8 bits, 4 of exponent and 3 of significand; see [`Storage::E4m3`](crate::Storage::E4m3).

use super::Load;
use crate::feature::{Slot, slot};

pub(crate) const SLOT: Slot = slot!("load", "e4m3");

/// 8 bits, 4 of exponent and 3 of significand; see [`Storage::E4m3`](crate::Storage::E4m3).
pub const LOAD: Load =
    Load { slot: SLOT, word4: "u32", word1: "u32", word1_log2: 2, needs_f16: false };
