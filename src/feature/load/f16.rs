//! binary16 through native `f16` (needs the device's shader-f16 feature).

use super::Load;
use crate::feature::{Slot, slot};

pub(crate) const SLOT: Slot = slot!("load", "f16");

/// binary16 through native `f16` (needs the device's shader-f16 feature).
pub const LOAD: Load =
    Load { slot: SLOT, word4: "vec4<f16>", word1: "f16", word1_log2: 0, needs_f16: true };
