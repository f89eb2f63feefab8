//! How a row of q and a row of k make a score: two inner loops serve every score function.

pub mod product;
pub mod tanh_sum;

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
    /// Σ_c w_c tanh(a (q_c + k_c)): additive attention (Bahdanau et al., 2015) after its projections;
    /// w = `score_v` comes with the tensors.
    TanhSum {
        /// The factor a inside the tanh, usually 1.
        inner_scale: Scalar,
    },
}

impl Inner {
    /// The WGSL file.
    pub fn slot(self) -> Slot {
        match self {
            Self::Product => product::SLOT,
            Self::TanhSum { .. } => tanh_sum::SLOT,
        }
    }

    /// The meaning, in float64.
    pub fn score(self, q: &[f64], k: &[f64], operands: &Operands<'_>) -> f64 {
        match self {
            Self::Product => product::score(q, k),
            Self::TanhSum { inner_scale } => {
                tanh_sum::score(f64::from(inner_scale.get()), q, k, operands.score_v)
            }
        }
    }
}
