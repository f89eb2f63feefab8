//! s + `bias[b, h, i, j]`, broadcast over any of the four dimensions; −∞ masks like a mask.

use super::{Score, Stage};
use crate::error::Result;
use crate::feature::{Entry, Operand, Operands, Parameter, Position, Setting, Slot, slot};
use crate::tensor::{Broadcast, Shape};

/// Elements between neighbours along batch, head, row and key; 0 where one serves all.
const STRIDES: [Parameter; 4] = [
    Parameter::u32("bias_stride_batch"),
    Parameter::u32("bias_stride_head"),
    Parameter::u32("bias_stride_row"),
    Parameter::u32("bias_stride_key"),
];

pub(crate) const SLOT: Slot =
    slot!("score", "bias", STRIDES[0], STRIDES[1], STRIDES[2], STRIDES[3]);

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

    fn text(&self) -> Option<String> {
        Some(format!("bias{:?}", self.0.0))
    }

    fn validate(&self, shape: &Shape) -> Result<()> {
        self.0.validate("bias", shape.scores())
    }

    fn parameters(&self) -> Vec<Setting> {
        let strides = STRIDES.into_iter().zip(self.0.strides());
        strides.map(|(parameter, stride)| parameter.is(stride as u32)).collect()
    }

    fn apply(&self, s: f64, at: &Position, operands: &Operands<'_>) -> f64 {
        let bias = operands.bias[self.0.index([at.batch, at.head, at.row, at.key])];
        // A bias of −∞ is a mask: it wins over whatever the masked key made of the score.
        if bias == f64::NEG_INFINITY { bias } else { s + bias }
    }

    fn derivative(&self, _: f64, _: &Position, _: &Operands<'_>) -> f64 {
        1.0
    }

    fn entry(&self, at: &Position, _: &Operands<'_>) -> Option<Entry> {
        let index = self.0.index([at.batch, at.head, at.row, at.key]);
        Some(Entry { operand: Operand::Bias, index, factor: 1.0 })
    }
}
