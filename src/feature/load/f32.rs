//! binary32, as it is.

use super::Load;
use crate::feature::{Slot, slot};

pub(crate) const SLOT: Slot = slot!("load", "f32");

/// binary32, as it is.
pub const LOAD: Load =
    Load { slot: SLOT, word4: "vec4<f32>", word1: "f32", word1_log2: 0, needs_f16: false };
