//! 8 bits with a scale per row; see [`Storage::Int8`](crate::Storage::Int8).

use super::Load;
use crate::feature::{Slot, slot};

pub(crate) const SLOT: Slot = slot!("load", "int8");

/// 8 bits with a scale per row; see [`Storage::Int8`](crate::Storage::Int8).
pub const LOAD: Load =
    Load { slot: SLOT, word4: "u32", word1: "u32", word1_log2: 2, needs_f16: false };
