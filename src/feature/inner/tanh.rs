//! tanh: Bahdanau's additive score.

use crate::feature::{Slot, slot};

pub(crate) const SLOT: Slot = slot!("inner", "tanh");
