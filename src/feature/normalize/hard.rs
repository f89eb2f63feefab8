//! All weight on the largest score, the first of equals.

use crate::feature::{Slot, slot};

pub(crate) const SLOT: Slot = slot!("normalize", "hard");

pub(super) fn weights(scores: &[Option<f64>], weights: &mut [f64]) {
    weights.fill(0.0);
    let visible = scores.iter().enumerate().filter_map(|(j, s)| s.map(|s| (j, s)));
    let better = |best: Option<(usize, f64)>, (j, s): (usize, f64)| match best {
        Some((_, largest)) if s <= largest || s.is_nan() => best,
        _ => Some((j, s)),
    };
    if let Some((j, _)) = visible.fold(None, better) {
        weights[j] = 1.0;
    }
}
