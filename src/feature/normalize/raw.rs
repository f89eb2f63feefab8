//! The scores themselves.

use super::each;
use crate::feature::{Slot, slot};

pub(crate) const SLOT: Slot = slot!("normalize", "raw");

pub(super) fn weights(scores: &[Option<f64>], weights: &mut [f64]) {
    each(scores, weights, |s| s);
}
