//! Key j is visible to row i iff |j − centers_i| ≤ reach: local attention around a predicted position
//! (Luong et al., 2015, local-p; with centers_i = i, local-m).
//!
//! The Gaussian exp(−(j − center)² / 2σ²), σ = reach / 2, multiplies the weights after they are
//! normalised, so they no longer sum to 1.

use std::ops::Range;

use super::Mask;
use crate::feature::{Entry, Operand, Operands, Parameter, Position, Setting, Slot, slot};
use crate::tensor::Scalar;

/// Furthest key from the center, and 1 / σ of the Gaussian.
const REACH: Parameter = Parameter::f32("local_reach");
const INVERSE_SIGMA: Parameter = Parameter::f32("local_inverse_sigma");

pub(crate) const SLOT: Slot =
    slot!("mask", "local", REACH, INVERSE_SIGMA).reading(&[Operand::Centers]);

/// Keys near a position per row, `centers` `[batch, seq_q]` among the tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Local {
    /// Furthest key from the center.
    pub reach: Scalar,
    /// Whether weights are multiplied with a Gaussian.
    pub gaussian: bool,
    /// Query rows of the call: the stride of `centers`.
    pub seq_q: u32,
}

impl Local {
    fn distance(&self, at: &Position, operands: &Operands<'_>) -> f64 {
        let center = operands.centers[at.batch as usize * self.seq_q as usize + at.row as usize];
        f64::from(at.key) - center
    }
}

impl Mask for Local {
    fn slot(&self) -> Slot {
        SLOT
    }

    fn parameters(&self) -> Vec<Setting> {
        let reach = self.reach.get();
        vec![REACH.is(reach), INVERSE_SIGMA.is(2.0 / reach)]
    }

    fn keeps(&self, at: &Position, operands: &Operands<'_>) -> bool {
        self.distance(at, operands).abs() <= f64::from(self.reach.get())
    }

    fn narrow(&self, _: u32, _: i64, keys: Range<i64>) -> Range<i64> {
        keys
    }

    fn factor(&self, at: &Position, operands: &Operands<'_>) -> f64 {
        if !self.gaussian {
            return 1.0;
        }
        let x = self.distance(at, operands) / (f64::from(self.reach.get()) / 2.0);
        (-0.5 * x * x).exp()
    }

    fn factor_entry(&self, at: &Position, operands: &Operands<'_>) -> Option<Entry> {
        let sigma = f64::from(self.reach.get()) / 2.0;
        let slope = self.distance(at, operands) / (sigma * sigma) * self.factor(at, operands);
        let index = at.batch as usize * self.seq_q as usize + at.row as usize;
        self.gaussian.then_some(Entry { operand: Operand::Centers, index, factor: slope })
    }
}
