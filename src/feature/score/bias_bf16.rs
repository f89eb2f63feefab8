//! s + `bias[b, h, i, j]` stored as bf16; see [`Bias`](super::bias::Bias), which declares its parameters.

use crate::feature::{Slot, slot};

pub(crate) const SLOT: Slot = slot!("score", "bias_bf16").unlisted();
