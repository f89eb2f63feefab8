//! Monotonic attention at inference (Raffel et al., 2017): row i takes the first key j ≥ t with s_ij ≥ 0, a
//! probability of at least 1/2, where t is the key that the rows before it came to.
//!
//! A row that finds none has weights 0, and t stays where it was.

use crate::feature::{Slot, slot};

pub(crate) const SLOT: Slot = slot!("normalize", "monotonic");

/// The key a row takes from `from` on.
pub fn step(scores: &[Option<f64>], from: usize) -> Option<usize> {
    let later = scores.iter().enumerate().skip(from);
    later.filter_map(|(key, s)| s.map(|s| (key, s))).find(|(_, s)| *s >= 0.0).map(|(key, _)| key)
}
