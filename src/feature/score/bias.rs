//! s + `bias[b, h, i, j]`, broadcast over any of the four dimensions; −∞ masks like a mask.

use super::{Score, Stage};
use crate::feature::{Operands, Position, Slot, slot};
use crate::tensor::Broadcast;

pub(crate) const SLOT: Slot = slot!("score", "bias");

/// Adds a tensor of the given broadcast shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bias(pub Broadcast);

impl Score for Bias {
    fn stage(&self) -> Stage {
        Stage::Biased
    }

    fn slot(&self) -> Slot {
        SLOT
    }

    fn apply(&self, s: f64, at: &Position, operands: &Operands<'_>) -> f64 {
        let bias = operands.bias[self.0.index([at.batch, at.head, at.row, at.key])];
        // A bias of −∞ is a mask: it wins over whatever the masked key made of the score.
        if bias == f64::NEG_INFINITY { bias } else { s + bias }
    }
}
