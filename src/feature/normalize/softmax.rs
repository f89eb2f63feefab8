//! p_j = exp(s_j − m) / Σ exp(s_k − m) over the visible keys; lse = m + ln Σ exp(s_k − m).
//!
//! A row without visible keys has weights 0 and lse −∞ (with a sink: lse = sink). One whose scores are all
//! −∞, or that has a NaN or +∞ among them, has NaN for weights and lse: nothing is left to weigh by. A sink
//! of −∞ is none.

use crate::feature::{Slot, slot};

pub(crate) const SLOT: Slot = slot!("normalize", "softmax");

/// Turns the visible scores of a row (`None` = masked) into weights; returns the row's lse.
pub fn softmax(scores: &[Option<f64>], sink: Option<f64>, weights: &mut [f64]) -> f64 {
    let sink = sink.filter(|sink| *sink != f64::NEG_INFINITY);
    let visible = || scores.iter().flatten().copied().chain(sink);
    // f64::max drops NaN; a visible NaN reaches the sum below all the same.
    let peak = visible().fold(f64::NEG_INFINITY, f64::max);
    if visible().next().is_none() {
        weights.fill(0.0);
        return f64::NEG_INFINITY;
    }
    let sum: f64 = visible().map(|s| (s - peak).exp()).sum();
    for (weight, score) in weights.iter_mut().zip(scores) {
        *weight = score.map_or(0.0, |s| (s - peak).exp() / sum);
    }
    peak + sum.ln()
}

/// d_s = p ∘ (d_p − Σ p d_p + d_lse) over the visible keys, and for the sink, whose d_p is 0, the same. Masked
/// keys have p = d_p = 0.
pub(super) fn backward(
    scores: &[Option<f64>],
    weights: &[f64],
    d_weights: &[f64],
    [lse, d_lse]: [f64; 2],
    sink: Option<f64>,
    dot: &dyn Fn(&[f64], &[f64]) -> f64,
) -> (Vec<f64>, f64) {
    let visible = |j: usize| scores[j].is_some();
    let mean = dot(weights, d_weights);
    let one = |j: usize| if visible(j) { weights[j] * (d_weights[j] - mean + d_lse) } else { 0.0 };
    let d_sink = sink.map_or(0.0, |sink| (sink - lse).exp() * (d_lse - mean));
    ((0..scores.len()).map(one).collect(), d_sink)
}
