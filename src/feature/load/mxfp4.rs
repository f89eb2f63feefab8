//! 4 bits with a power of two per 32 channels; see [`Storage::Mxfp4`](crate::Storage::Mxfp4).

use super::Load;
use crate::feature::{Slot, slot};

pub(crate) const SLOT: Slot = slot!("load", "mxfp4");

/// 4 bits with a power of two per 32 channels; see [`Storage::Mxfp4`](crate::Storage::Mxfp4).
pub const LOAD: Load =
    Load { slot: SLOT, word4: "u32", word1: "u32", word1_log2: 3, needs_f16: false };
