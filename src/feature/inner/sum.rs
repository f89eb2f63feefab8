//! Σ_c w_c f(a (q_c + k_c)): additive attention after its projections.

use crate::feature::{Slot, slot};

pub(crate) const SLOT: Slot = slot!("inner", "sum");

pub(super) fn score(a: f64, q: &[f64], k: &[f64], w: &[f64], f: impl Fn(f64) -> f64) -> f64 {
    q.iter().zip(k).zip(w).map(|((q, k), w)| w * f(a * (q + k))).sum()
}
