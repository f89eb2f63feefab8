//! The projection of the scores onto the simplex: relu(z − τ), which sums to 1.

use super::{each, threshold};
use crate::feature::{Slot, slot};

pub(crate) const SLOT: Slot = slot!("normalize", "sparsemax");

/// What a weight counts in the derivative d_s = m ∘ (d_w − Σ m d_w / Σ m): whether the key has a part.
pub(super) fn measure(weight: f64) -> f64 {
    f64::from(weight > 0.0)
}

pub(super) fn weights(scores: &[Option<f64>], weights: &mut [f64]) {
    // Not f64::max, which drops NaN.
    let weight = |x: f64| if x < 0.0 { 0.0 } else { x };
    let visible: Vec<f64> = scores.iter().flatten().copied().collect();
    let tau = threshold(&visible, weight);
    each(scores, weights, |s| weight(s - tau));
}
