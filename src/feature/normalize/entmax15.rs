//! 1.5-entmax: relu(z / 2 − τ)², which sums to 1.

use super::{each, threshold};
use crate::feature::{Slot, slot};

pub(crate) const SLOT: Slot = slot!("normalize", "entmax15");

/// What a weight counts in the derivative d_s = m ∘ (d_w − Σ m d_w / Σ m).
pub(super) fn measure(weight: f64) -> f64 {
    weight.sqrt()
}

pub(super) fn weights(scores: &[Option<f64>], weights: &mut [f64]) {
    // Not f64::max, which drops NaN.
    let weight = |x: f64| if x < 0.0 { 0.0 } else { x * x };
    let visible: Vec<f64> = scores.iter().flatten().map(|s| 0.5 * s).collect();
    let tau = threshold(&visible, weight);
    each(scores, weights, |s| weight(0.5 * s - tau));
}
