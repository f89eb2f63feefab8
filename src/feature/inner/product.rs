//! Σ_c q_c k_c: dot-product attention.

use crate::feature::{Slot, slot};

pub(crate) const SLOT: Slot = slot!("inner", "product");

pub(super) fn score(q: &[f64], k: &[f64]) -> f64 {
    q.iter().zip(k).map(|(q, k)| q * k).sum()
}
