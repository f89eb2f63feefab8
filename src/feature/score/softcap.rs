//! c · tanh(s / c): bounds scores smoothly, before bias and masks (Gemma 2).

use super::{Score, Stage};
use crate::feature::{Operands, Position, Slot, slot};
use crate::tensor::Scalar;

pub(crate) const SLOT: Slot = slot!("score", "softcap");

/// Caps scores to the open interval (−c, c); c > 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Softcap(pub Scalar);

impl Score for Softcap {
    fn stage(&self) -> Stage {
        Stage::Capped
    }

    fn slot(&self) -> Slot {
        SLOT
    }

    fn apply(&self, s: f64, _: &Position, _: &Operands<'_>) -> f64 {
        let cap = f64::from(self.0.get());
        cap * (s / cap).tanh()
    }
}
