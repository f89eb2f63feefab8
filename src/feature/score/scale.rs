//! s · (q·k), applied once, in f32, to the finished product.

use super::{Score, Stage};
use crate::feature::{Operands, Position, Slot, slot};
use crate::tensor::Scalar;

pub(crate) const SLOT: Slot = slot!("score", "scale");

/// Multiplies the product by a constant; 1/√dim_qk unless the caller says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scale(pub Scalar);

impl Score for Scale {
    fn stage(&self) -> Stage {
        Stage::Scaled
    }

    fn slot(&self) -> Slot {
        SLOT
    }

    fn apply(&self, s: f64, _: &Position, _: &Operands<'_>) -> f64 {
        s * f64::from(self.0.get())
    }
}
