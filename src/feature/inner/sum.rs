//! Σ_c w_c f(a (q_c + k_c)): additive attention after its projections.

use crate::feature::{Operand, Parameter, Slot, slot};

/// Words between the weights of query heads, 0 where they share them, and the factor a.
pub(super) const STRIDE: Parameter = Parameter::u32("score_v_stride");
pub(super) const SCALE: Parameter = Parameter::f32("inner_scale");

pub(crate) const SLOT: Slot = slot!("inner", "sum", STRIDE, SCALE).reading(&[Operand::ScoreV]);

pub(super) fn score(a: f64, q: &[f64], k: &[f64], w: &[f64], f: impl Fn(f64) -> f64) -> f64 {
    q.iter().zip(k).zip(w).map(|((q, k), w)| w * f(a * (q + k))).sum()
}
