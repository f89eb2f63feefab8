//! All weight on the largest score, the first of equals; NaN is the least, as −∞ is, and taken only where
//! there is nothing else.

use crate::feature::{Slot, slot};

pub(crate) const SLOT: Slot = slot!("normalize", "hard");

pub(super) fn weights(scores: &[Option<f64>], weights: &mut [f64]) {
    weights.fill(0.0);
    let least = |s: f64| if s.is_nan() { f64::NEG_INFINITY } else { s };
    let visible = scores.iter().enumerate().filter_map(|(j, s)| s.map(|s| (j, least(s))));
    let better = |best: Option<(usize, f64)>, (j, s): (usize, f64)| match best {
        Some((_, largest)) if s <= largest => best,
        _ => Some((j, s)),
    };
    if let Some((j, _)) = visible.fold(None, better) {
        weights[j] = 1.0;
    }
}
