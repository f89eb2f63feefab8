//! The numbers that gradients are computed in: float64, float32 added in some order, or what float32 may be off by.

use crate::feature::normalize::Normalizer;
use crate::problem::Operand;
use crate::reference::Order;
use crate::reference::emulate::{dot, kept, softmax};
use crate::tensor::DType;

/// How a number is computed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Arithmetic {
    /// In float64.
    Exact,
    /// In float32: products and sums over channels, rows and keys are rounded, in an order of the emulations; softmax
    /// as well. What another normaliser makes of a row is float64's, rounded.
    Single(Order),
    /// Its terms' magnitudes, whatever cancels: what is rounded is a part of these, not of their sum. In units of
    /// float32's ε, so each counts as often as its weight may be off.
    Bound,
}

impl Arithmetic {
    pub(super) fn round(self, x: f64) -> f64 {
        match self {
            Self::Single(order) => f64::from(kept(x as f32, order)),
            Self::Exact | Self::Bound => x,
        }
    }

    /// What ends up in memory.
    pub(super) fn store(self, x: f64, dtype: DType) -> f64 {
        match self {
            Self::Single(_) => dtype.round(x),
            Self::Exact | Self::Bound => x,
        }
    }

    /// x, or its magnitude.
    pub(super) fn sized(self, x: f64) -> f64 {
        if self == Self::Bound { x.abs() } else { x }
    }

    /// sum + a · b.
    pub(super) fn add(self, sum: &mut f64, a: f64, b: f64) {
        *sum = match self {
            Self::Exact => *sum + a * b,
            Self::Single(Order::Blocked) => f64::from((a as f32).mul_add(b as f32, *sum as f32)),
            Self::Single(order) => {
                f64::from(kept(*sum as f32 + kept(a as f32 * b as f32, order), order))
            }
            Self::Bound => *sum + (a * b).abs(),
        };
    }

    pub(super) fn dot(self, a: &[f64], b: &[f64]) -> f64 {
        let terms = || a.iter().zip(b);
        match self {
            Self::Exact => terms().map(|(a, b)| a * b).sum(),
            Self::Single(order) => {
                f64::from(dot(terms().map(|(a, b)| (*a as f32, *b as f32)), order))
            }
            Self::Bound => terms().map(|(a, b)| (a * b).abs()).sum(),
        }
    }

    /// Items in the order in which they are added.
    pub(super) fn ordered<T>(self, mut items: Vec<T>) -> Vec<T> {
        if self == Self::Single(Order::Reversed) {
            items.reverse();
        }
        items
    }

    /// How many units a weight may be off: WGSL lets a division be 2.5 and an exponential 3 units off, and the scores
    /// that carry a row lie near its log-sum-exp, each known to half a unit of its own size and rounded again in base
    /// 2.
    pub(super) fn units(self, lse: f64) -> f64 {
        match self {
            Self::Bound if lse.is_finite() => 4.0 + lse.abs(),
            Self::Bound => 4.0,
            Self::Exact | Self::Single(_) => 1.0,
        }
    }

    /// The weights of a row; returns its log-sum-exp, see [`Normalizer::weights`].
    pub(super) fn weights(
        self,
        normalizer: Normalizer,
        scores: &[Option<f64>],
        sink: Option<f64>,
        weights: &mut [f64],
    ) -> f64 {
        match (self, normalizer) {
            (Self::Single(order), Normalizer::Softmax) => softmax(scores, sink, order, weights),
            _ => {
                let lse = normalizer.weights(scores, &[], sink, weights);
                weights.iter_mut().for_each(|w| *w = self.round(*w));
                lse
            }
        }
    }

    /// The gradients of a row's scores and of its sink, see [`Normalizer::backward`].
    pub(super) fn normalized(
        self,
        normalizer: Normalizer,
        row: &Row<'_>,
        sink: Option<f64>,
    ) -> (Vec<f64>, f64) {
        let Row { scores, weights, d_weights, lse, d_lse } = *row;
        if self != Self::Bound {
            let dot = |a: &[f64], b: &[f64]| self.dot(a, b);
            let (d_scores, d_sink) =
                normalizer.backward(scores, weights, d_weights, [lse, d_lse], sink, &dot);
            let d_scores = d_scores.into_iter().map(|x| self.round(x)).collect();
            return (d_scores, self.round(d_sink));
        }
        let units = self.units(lse);
        let visible = |j: usize| scores[j].is_some();
        let size = |j: usize| weights[j].abs() * d_weights[j].abs();
        let mean: f64 = (0..scores.len()).filter(|&j| visible(j)).map(size).sum();
        let part = |j: &usize| visible(*j) && weights[*j] > 0.0;
        let most = (0..scores.len()).filter(part).fold(0.0, |most, j| d_weights[j].abs().max(most));
        let one = |j: usize| {
            let d = d_weights[j].abs();
            units
                * match (normalizer, weights[j]) {
                    _ if !visible(j) => 0.0,
                    (Normalizer::Softmax, w) => w * (d + mean + d_lse.abs()),
                    // Whether a key has a part, or how large it is, is a difference.
                    (Normalizer::Sparsemax | Normalizer::Entmax15, w) if w > 0.0 => d + most,
                    (Normalizer::Sparsemax | Normalizer::Entmax15, _) => 0.0,
                    // So is 1 - w.
                    (Normalizer::Sigmoid { .. }, w) => w * d,
                    (Normalizer::Relu { power: 2, divisor }, w) => {
                        2.0 * (w / f64::from(divisor.get())).sqrt() * d
                    }
                    (Normalizer::Relu { divisor, .. }, w) if w > 0.0 => {
                        d / f64::from(divisor.get())
                    }
                    (Normalizer::Relu { .. }, _) => 0.0,
                    _ => d,
                }
        };
        let d_sink = sink.map_or(0.0, |sink| (sink - lse).exp() * (d_lse.abs() + mean) * units);
        ((0..scores.len()).map(one).collect(), d_sink)
    }

    /// Whether a row of a tensor, or all of it, is stored in another type than f32.
    pub(super) fn stored(self, values: &mut [f64], operand: Operand, dtype: Option<DType>) {
        let dtype = dtype.filter(|_| operand.rows().is_some()).unwrap_or(DType::F32);
        values.iter_mut().for_each(|x| *x = self.store(*x, dtype));
    }
}

/// A row of scores with its weights, the gradients of these, lse and its gradient.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) scores: &'a [Option<f64>],
    pub(super) weights: &'a [f64],
    pub(super) d_weights: &'a [f64],
    pub(super) lse: f64,
    pub(super) d_lse: f64,
}
