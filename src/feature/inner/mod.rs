//! How a row of q and a row of k make a score: two inner loops serve every score function.

pub mod leaky_relu;
pub mod product;
pub mod sum;
pub mod tanh;

use super::{Operands, Setting, Slot};
use crate::error::{Error, Result};
use crate::tensor::{self, Scalar, Shape};

/// The WGSL files.
pub(crate) const SLOTS: &[Slot] = &[product::SLOT, sum::SLOT, tanh::SLOT, leaky_relu::SLOT];

/// The inner loop of a score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
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
        /// Whether each query head has weights w of its own, `[heads_q, dim_qk]` rather than `[dim_qk]`.
        per_head: bool,
    },
}

/// The function of an additive score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
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

    /// The values of the slots' parameters, for rows of `dim` channels.
    pub(crate) fn parameters(self, dim: u32) -> Vec<Setting> {
        let Self::Sum { activation, inner_scale, per_head } = self else { return Vec::new() };
        let stride = if per_head { dim } else { 0 };
        let mut all = vec![sum::STRIDE.is(stride), sum::SCALE.is(inner_scale.get())];
        match activation {
            Activation::Tanh => {}
            Activation::LeakyRelu { slope } => all.push(leaky_relu::SLOPE.is(slope.get())),
        }
        all
    }

    /// A word for names of cases, plans and messages; `None` for dot products, which go without saying.
    pub(crate) fn text(self) -> Option<String> {
        match self {
            Self::Product => None,
            Self::Sum { activation: Activation::Tanh, inner_scale, per_head } => {
                let heads = if per_head { ",per-head" } else { "" };
                Some(format!("additive({:?}{heads})", inner_scale.get()))
            }
            Self::Sum { activation: Activation::LeakyRelu { slope }, inner_scale, per_head } => {
                let heads = if per_head { "" } else { ",shared" };
                Some(format!("leaky({:?},{:?}{heads})", slope.get(), inner_scale.get()))
            }
        }
    }

    pub(crate) fn validate(self) -> Result<()> {
        let Self::Sum { activation, inner_scale, .. } = self else { return Ok(()) };
        let slope = match activation {
            Activation::Tanh => 0.0,
            Activation::LeakyRelu { slope } => slope.get(),
        };
        for (argument, found) in [("inner_scale", inner_scale.get()), ("leaky slope", slope)] {
            if !found.is_finite() {
                return Err(Error::invalid(argument, found, "a finite number"));
            }
        }
        Ok(())
    }

    /// Elements of `score_v`, where it comes with the tensors.
    pub(crate) fn elements(self, shape: &Shape) -> Option<u64> {
        match self {
            Self::Product => None,
            Self::Sum { per_head: false, .. } => Some(shape.dim_qk.into()),
            Self::Sum { per_head: true, .. } => {
                Some(tensor::product(&[shape.heads_q, shape.dim_qk]))
            }
        }
    }

    /// The weights w of a query head, for `dim` channels.
    pub fn weights<'a>(self, head: u32, dim: usize, operands: &Operands<'a>) -> &'a [f64] {
        let start = if self.is_per_head() { head as usize * dim } else { 0 };
        operands.score_v.get(start..start + dim).unwrap_or_default()
    }

    /// Whether each query head has weights of its own.
    pub(crate) fn is_per_head(self) -> bool {
        matches!(self, Self::Sum { per_head: true, .. })
    }

    /// Whether the score is additive.
    pub fn is_sum(self) -> bool {
        self != Self::Product
    }

    /// The meaning for a query head, in float64.
    pub fn score(self, head: u32, q: &[f64], k: &[f64], operands: &Operands<'_>) -> f64 {
        match self {
            Self::Product => product::score(q, k),
            Self::Sum { activation, inner_scale, .. } => {
                let scale = f64::from(inner_scale.get());
                let w = self.weights(head, q.len(), operands);
                sum::score(scale, q, k, w, |x| activation.apply(x))
            }
        }
    }
}

impl Inner {
    /// Adds what `d_score`, the gradient of a score of a query head, makes of the gradients of q, k and, where the
    /// score is additive, w; `add(sum, a, b)` is sum + a b.
    pub(crate) fn backward(
        self,
        d_score: f64,
        [q, k, w]: [&[f64]; 3],
        [d_q, d_k, d_w]: [&mut [f64]; 3],
        add: impl Fn(&mut f64, f64, f64),
    ) {
        let Self::Sum { activation, inner_scale, .. } = self else {
            for c in 0..q.len() {
                add(&mut d_q[c], d_score, k[c]);
                add(&mut d_k[c], d_score, q[c]);
            }
            return;
        };
        let scale = f64::from(inner_scale.get());
        for c in 0..q.len() {
            let x = scale * (q[c] + k[c]);
            let slope = w[c] * activation.derivative(x) * scale;
            add(&mut d_q[c], d_score, slope);
            add(&mut d_k[c], d_score, slope);
            add(&mut d_w[c], d_score, activation.apply(x));
        }
    }
}

impl Activation {
    /// f′(x); at 0 that from above.
    pub fn derivative(self, x: f64) -> f64 {
        match self {
            Self::Tanh => x.cosh().powi(-2),
            Self::LeakyRelu { slope } if x < 0.0 => f64::from(slope.get()),
            Self::LeakyRelu { .. } => 1.0,
        }
    }

    /// f(x).
    pub fn apply(self, x: f64) -> f64 {
        match self {
            Self::Tanh => x.tanh(),
            Self::LeakyRelu { slope } if x < 0.0 => f64::from(slope.get()) * x,
            Self::LeakyRelu { .. } => x,
        }
    }
}
