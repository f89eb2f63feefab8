//! binary16 through native `f16` (needs the device's shader-f16 feature).

use super::Store;
use crate::feature::{Slot, slot};

pub(crate) const SLOT: Slot = slot!("store", "f16");

/// binary16 through native `f16` (needs the device's shader-f16 feature).
pub const STORE: Store =
    Store { slot: SLOT, word4: "vec4<f16>", word1: "f16", halves: false, needs_f16: true };
