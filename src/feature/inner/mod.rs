//! How a row of q and a row of k make a score: two inner loops serve every score function.

pub mod leaky_relu;
pub mod product;
pub mod sum;
pub mod tanh;

use super::{Operands, Slot};
use crate::tensor::Scalar;

/// The inner loop of a score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Inner {
    /// Σ_c q_c k_c.
    #[default]
    Product,
    /// Σ_c w_c f(a (q_c + k_c)): additive attention after its projections; w = `score_v` comes with the
    /// tensors.
    Sum {
        /// The function f.
        activation: Activation,
        /// The factor a inside it, usually 1.
        inner_scale: Scalar,
    },
}

/// The function of an additive score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Activation {
    /// tanh (Bahdanau et al., 2015).
    Tanh,
    /// x, or `slope` · x below 0 (graph attention: Veličković et al., 2018; Brody et al., 2022).
    LeakyRelu {
        /// The slope below 0.
        slope: Scalar,
    },
}

impl Inner {
    /// The WGSL files.
    pub fn slots(self) -> Vec<Slot> {
        match self {
            Self::Product => vec![product::SLOT],
            Self::Sum { activation: Activation::Tanh, .. } => vec![tanh::SLOT, sum::SLOT],
            Self::Sum { activation: Activation::LeakyRelu { .. }, .. } => {
                vec![leaky_relu::SLOT, sum::SLOT]
            }
        }
    }

    /// Whether the score is additive.
    pub fn is_sum(self) -> bool {
        self != Self::Product
    }

    /// The meaning, in float64.
    pub fn score(self, q: &[f64], k: &[f64], operands: &Operands<'_>) -> f64 {
        match self {
            Self::Product => product::score(q, k),
            Self::Sum { activation, inner_scale } => {
                let scale = f64::from(inner_scale.get());
                sum::score(scale, q, k, operands.score_v, |x| activation.apply(x))
            }
        }
    }
}

impl Activation {
    /// f(x).
    pub fn apply(self, x: f64) -> f64 {
        match self {
            Self::Tanh => x.tanh(),
            Self::LeakyRelu { slope } if x < 0.0 => f64::from(slope.get()) * x,
            Self::LeakyRelu { .. } => x,
        }
    }
}
