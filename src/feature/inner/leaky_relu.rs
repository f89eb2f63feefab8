//! x, or slope · x below 0: graph attention's additive score.

use crate::feature::{Slot, slot};

pub(crate) const SLOT: Slot = slot!("inner", "leaky_relu");
