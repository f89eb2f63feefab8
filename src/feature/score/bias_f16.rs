//! s + `bias[b, h, i, j]` stored as f16; see [`Bias`](super::bias::Bias), which declares its parameters.

use crate::feature::{Slot, slot};

pub(crate) const SLOT: Slot = slot!("score", "bias_f16").unlisted();
