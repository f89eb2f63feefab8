//! Key j is visible to row i iff |j − centers_i| ≤ reach: local attention around a predicted position
//! (Luong et al., 2015, local-p; with centers_i = i, local-m).
//!
//! The Gaussian exp(−(j − center)² / 2σ²), σ = reach / 2, multiplies the weights after they are
//! normalised, so they no longer sum to 1.

use super::{Kind, Mask};
use crate::error::{Error, Result};
use crate::feature::{Entry, Operand, Operands, Parameter, Position, Setting, Slot, slot};
use crate::tensor::{Scalar, Shape, product};

/// Furthest key from the center, and 1 / σ of the Gaussian.
const REACH: Parameter = Parameter::f32("local_reach");
const INVERSE_SIGMA: Parameter = Parameter::f32("local_inverse_sigma");

pub(crate) const SLOT: Slot = slot!("mask", "local", REACH, INVERSE_SIGMA)
    .titled("predicted centres")
    .reading(&[Operand::Centers]);

/// Keys near a position per row, `centers` `[batch, seq_q]` among the tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Local {
    /// Furthest key from the center.
    pub reach: Scalar,
    /// Whether weights are multiplied with a Gaussian.
    #[cfg_attr(feature = "serde", serde(default))]
    pub gaussian: bool,
}

impl Local {
    fn distance(&self, at: &Position, operands: &Operands<'_>, shape: &Shape) -> f64 {
        let center = operands.centers[at.batch as usize * shape.seq_q as usize + at.row as usize];
        f64::from(at.key) - center
    }
}

impl Mask for Local {
    fn slot(&self) -> Slot {
        SLOT
    }

    fn text(&self) -> String {
        let gaussian = if self.gaussian { ",gaussian" } else { "" };
        format!("local({:?}{gaussian})", self.reach.get())
    }

    fn validate(&self, _: &Shape) -> Result<()> {
        let reach = self.reach.get();
        if reach > 0.0 && reach.is_finite() {
            return Ok(());
        }
        Err(Error::invalid("local reach", reach, "a finite number > 0"))
    }

    fn unpacked(&self) -> Option<&'static str> {
        Some("none, or sequences that are not packed")
    }

    fn operands(&self, shape: &Shape) -> Vec<(Operand, u64)> {
        vec![(Operand::Centers, product(&[shape.batch, shape.seq_q]))]
    }

    fn parameters(&self, _: &Shape) -> Vec<Setting> {
        let reach = self.reach.get();
        vec![REACH.is(reach), INVERSE_SIGMA.is(2.0 / reach)]
    }

    fn keeps(&self, at: &Position, operands: &Operands<'_>, shape: &Shape) -> bool {
        self.distance(at, operands, shape).abs() <= f64::from(self.reach.get())
    }

    fn weighs(&self) -> bool {
        self.gaussian
    }

    fn factor(&self, at: &Position, operands: &Operands<'_>, shape: &Shape) -> f64 {
        if !self.gaussian {
            return 1.0;
        }
        let x = self.distance(at, operands, shape) / (f64::from(self.reach.get()) / 2.0);
        (-0.5 * x * x).exp()
    }

    fn factor_entry(&self, at: &Position, operands: &Operands<'_>, shape: &Shape) -> Option<Entry> {
        let sigma = f64::from(self.reach.get()) / 2.0;
        let slope =
            self.distance(at, operands, shape) / (sigma * sigma) * self.factor(at, operands, shape);
        let index = at.batch as usize * shape.seq_q as usize + at.row as usize;
        self.gaussian.then_some(Entry { operand: Operand::Centers, index, factor: slope })
    }
}

impl Kind for Local {
    fn examples(_: &Shape) -> Vec<Self> {
        [false, true].map(|gaussian| Self { reach: Scalar(2.5), gaussian }).to_vec()
    }

    fn known(self, _: &Shape) -> Self {
        Self { reach: Scalar(9.5), ..self }
    }
}
