//! Normalisers: from a row of scores to a row of weights.
//!
//! A masked key has weight 0 whatever the normaliser, and a row that sees nothing has weights 0.

pub mod entmax15;
pub mod hard;
pub mod monotonic;
pub mod raw;
pub mod relu;
pub mod sigmoid;
pub mod sink;
pub mod softmax;
pub mod sparsemax;

use super::{Setting, Slot};
use crate::error::{Error, Result};
use crate::tensor::{Scalar, Shape};

/// The WGSL files.
pub(crate) const SLOTS: &[Slot] = &[
    softmax::SLOT,
    sink::SLOT,
    relu::SLOT,
    sigmoid::SLOT,
    hard::SLOT,
    monotonic::SLOT,
    sparsemax::SLOT,
    entmax15::SLOT,
    raw::SLOT,
];

/// How scores become weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub enum Normalizer {
    /// exp(s_j − lse).
    #[default]
    Softmax,
    /// relu(s_j)^power / divisor (Wortsman et al., 2023, with the number of keys as divisor; squared:
    /// Hua et al., 2022).
    Relu {
        /// 1 or 2.
        power: u32,
        /// Usually the number of keys.
        divisor: Scalar,
    },
    /// 1 / (1 + exp(−(s_j + bias))) (Ramapuram et al., 2024).
    Sigmoid {
        /// Usually −ln of the number of keys.
        bias: Scalar,
    },
    /// 1 for the largest score, the first of equals; 0 for the others.
    Hard,
    /// 1 for one key drawn from softmax(s), 0 for the others: Gumbel-max with noise that depends on seed
    /// and position only.
    Sample {
        /// Equal seeds draw equal keys, on every device.
        seed: u64,
    },
    /// The projection onto the simplex (Martins and Astudillo, 2016).
    Sparsemax,
    /// 1.5-entmax (Peters et al., 2019).
    Entmax15,
    /// Hard, and never backwards: row i takes the first key with a score of at least 0, from the key of the
    /// rows before it on (Raffel et al., 2017, at inference).
    Monotonic,
    /// The scores themselves: a weighted sum that is not normalised.
    Raw,
}

impl Normalizer {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Softmax => "softmax",
            Self::Relu { .. } => "relu",
            Self::Sigmoid { .. } => "sigmoid",
            Self::Hard => "hard",
            Self::Sample { .. } => "sample",
            Self::Sparsemax => "sparsemax",
            Self::Entmax15 => "entmax15",
            Self::Monotonic => "monotonic",
            Self::Raw => "raw",
        }
    }

    /// A word for names of cases, plans and messages; `None` for softmax, which goes without saying.
    pub(crate) fn text(self) -> Option<String> {
        match self {
            Self::Softmax => None,
            Self::Relu { power, divisor } => Some(format!("relu({power},{:?})", divisor.get())),
            Self::Sigmoid { bias } => Some(format!("sigmoid({:?})", bias.get())),
            Self::Sample { seed } => Some(format!("sample({seed})")),
            Self::Hard | Self::Sparsemax | Self::Entmax15 | Self::Monotonic | Self::Raw => {
                Some(self.name().into())
            }
        }
    }

    /// The WGSL file.
    pub fn slot(self) -> Slot {
        match self {
            Self::Softmax => softmax::SLOT,
            Self::Relu { .. } => relu::SLOT,
            Self::Sigmoid { .. } => sigmoid::SLOT,
            Self::Hard | Self::Sample { .. } => hard::SLOT,
            Self::Sparsemax => sparsemax::SLOT,
            Self::Entmax15 => entmax15::SLOT,
            Self::Monotonic => monotonic::SLOT,
            Self::Raw => raw::SLOT,
        }
    }

    /// The values of the slot's parameters; the seed of a draw is the Gumbel noise's.
    pub(crate) fn parameters(self) -> Vec<Setting> {
        match self {
            Self::Relu { power, divisor } => {
                vec![relu::FACTOR.is(1.0 / divisor.get()), relu::POWER.is(power)]
            }
            Self::Sigmoid { bias } => vec![sigmoid::BIAS.is(bias.get())],
            Self::Softmax
            | Self::Hard
            | Self::Sample { .. }
            | Self::Sparsemax
            | Self::Entmax15
            | Self::Monotonic
            | Self::Raw => Vec::new(),
        }
    }

    /// Whether the whole row of scores must be there before any weight is known.
    pub fn needs_row(self) -> bool {
        matches!(self, Self::Sparsemax | Self::Entmax15 | Self::Monotonic)
    }

    /// Whether one key takes all weight.
    pub fn takes_one(self) -> bool {
        matches!(self, Self::Hard | Self::Sample { .. } | Self::Monotonic)
    }

    /// Turns the visible scores of a row (`None` = masked) into weights, in float64. Returns the
    /// log-sum-exp of softmax, and for the others the largest visible score; −∞ where there is none.
    ///
    /// `drawn` are the scores with the noise of [`Normalizer::Sample`]; others do not look at them. For
    /// [`Normalizer::Monotonic`] `scores` begin where the rows before have come to.
    pub fn weights(
        self,
        scores: &[Option<f64>],
        drawn: &[Option<f64>],
        sink: Option<f64>,
        weights: &mut [f64],
    ) -> f64 {
        match self {
            Self::Softmax => return softmax::softmax(scores, sink, weights),
            Self::Relu { power, divisor } => relu::weights(scores, power, divisor, weights),
            Self::Sigmoid { bias } => sigmoid::weights(scores, bias, weights),
            Self::Hard => hard::weights(scores, weights),
            Self::Sample { .. } => hard::weights(drawn, weights),
            Self::Sparsemax => sparsemax::weights(scores, weights),
            Self::Entmax15 => entmax15::weights(scores, weights),
            Self::Monotonic => {
                weights.fill(0.0);
                if let Some(key) = monotonic::step(scores, 0) {
                    weights[key] = 1.0;
                }
            }
            Self::Raw => raw::weights(scores, weights),
        }
        scores.iter().flatten().fold(f64::NEG_INFINITY, |a, b| a.max(*b))
    }

    /// The gradients of a row's scores, 0 where they are masked, from those of its weights and of its lse, and the
    /// gradient of the sink, e^(sink − lse) of which is its weight. `dot` sums products over a row's keys.
    pub(crate) fn backward(
        self,
        scores: &[Option<f64>],
        weights: &[f64],
        d_weights: &[f64],
        [lse, d_lse]: [f64; 2],
        sink: Option<f64>,
        dot: &dyn Fn(&[f64], &[f64]) -> f64,
    ) -> (Vec<f64>, f64) {
        let one = |j: usize, slope: f64| scores[j].map_or(0.0, |_| slope * d_weights[j]);
        let each = |slope: &dyn Fn(f64, f64) -> f64| {
            let visible = |j: usize| one(j, slope(scores[j].unwrap_or(f64::NAN), weights[j]));
            (0..scores.len()).map(visible).collect()
        };
        // A key without a part passes nothing on, whatever its d_w.
        let by = |measure: &dyn Fn(f64) -> f64| {
            let part = |j: &usize| scores[*j].is_some() && weights[*j] != 0.0;
            let total: f64 = (0..scores.len()).map(|j| measure(weights[j])).sum();
            let terms = (0..scores.len()).filter(part).map(|j| one(j, measure(weights[j])));
            let mean = terms.sum::<f64>() / total;
            let d = |j: usize| measure(weights[j]) * (d_weights[j] - mean);
            (0..scores.len()).map(|j| if part(&j) { d(j) } else { 0.0 }).collect()
        };
        let d_scores = match self {
            Self::Softmax => {
                return softmax::backward(scores, weights, d_weights, [lse, d_lse], sink, dot);
            }
            Self::Relu { power, divisor } => each(&|s, _| relu::derivative(s, power, divisor)),
            Self::Sigmoid { .. } => each(&|_, w| w * (1.0 - w)),
            Self::Raw => each(&|_, _| 1.0),
            Self::Sparsemax => by(&sparsemax::measure),
            Self::Entmax15 => by(&entmax15::measure),
            // No gradient, as the problem says.
            Self::Hard | Self::Sample { .. } | Self::Monotonic => vec![0.0; scores.len()],
        };
        (d_scores, 0.0)
    }

    pub(crate) fn validate(self, shape: &Shape) -> Result<()> {
        if self.takes_one() && shape.seq_kv > 1 << 24 {
            return Err(Error::invalid("seq_kv", shape.seq_kv, "at most 2^24 for hard attention"));
        }
        match self {
            Self::Relu { power, .. } if power != 1 && power != 2 => {
                Err(Error::invalid("normalizer power", power, "1 or 2"))
            }
            Self::Relu { divisor, .. } if !(divisor.get() > 0.0 && divisor.get().is_finite()) => {
                Err(Error::invalid("normalizer divisor", divisor.get(), "a finite number > 0"))
            }
            Self::Sigmoid { bias } if !bias.get().is_finite() => {
                Err(Error::invalid("normalizer bias", bias.get(), "a finite number"))
            }
            Self::Softmax
            | Self::Relu { .. }
            | Self::Sigmoid { .. }
            | Self::Hard
            | Self::Sample { .. }
            | Self::Sparsemax
            | Self::Entmax15
            | Self::Monotonic
            | Self::Raw => Ok(()),
        }
    }
}

/// Applies a function to every visible score; masked keys get 0.
fn each(scores: &[Option<f64>], weights: &mut [f64], weight: impl Fn(f64) -> f64) {
    for (to, score) in weights.iter_mut().zip(scores) {
        *to = score.map_or(0.0, &weight);
    }
}

/// The threshold at which Σ weight(z_j − τ) is 1, by bisection to the last bit: the sum falls with τ, is
/// at least 1 one below the maximum and 0 at it.
///
/// NaN where the maximum is no number (a NaN among the scores, ∞, nothing but −∞): nothing is left to weigh by.
fn threshold(visible: &[f64], weight: impl Fn(f64) -> f64) -> f64 {
    let peak = visible.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if !peak.is_finite() || visible.iter().any(|z| z.is_nan()) {
        return f64::NAN;
    }
    let (mut low, mut high) = (peak - 1.0, peak);
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        let sum: f64 = visible.iter().map(|z| weight(z - middle)).sum();
        if sum > 1.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}
