//! binary32, as it is.

use super::Store;
use crate::feature::{Slot, slot};

pub(crate) const SLOT: Slot = slot!("store", "f32");

/// binary32, as it is.
pub const STORE: Store =
    Store { slot: SLOT, word4: "vec4<f32>", word1: "f32", halves: false, needs_f16: false };
