//! s + `bias[b, h, i, j]`, broadcast over any of the four dimensions; −∞ masks like a mask.

use super::{Score, Stage, bias_bf16, bias_f16};
use crate::error::Result;
use crate::feature::{Entry, Operand, Operands, Parameter, Position, Setting, Slot, slot};
use crate::tensor::{Broadcast, DType, Shape};

/// Elements between neighbours along batch, head, row and key; 0 where one serves all.
const STRIDES: [Parameter; 4] = [
    Parameter::u32("bias_stride_batch"),
    Parameter::u32("bias_stride_head"),
    Parameter::u32("bias_stride_row"),
    Parameter::u32("bias_stride_key"),
];

pub(crate) const SLOT: Slot =
    slot!("score", "bias", STRIDES[0], STRIDES[1], STRIDES[2], STRIDES[3]);

/// Adds a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bias {
    /// Its broadcast shape.
    pub shape: Broadcast,
    /// How it is stored.
    pub dtype: DType,
}

/// Whether a slot adds the bias, in whatever type.
pub(crate) fn is_bias(slot: &Slot) -> bool {
    [SLOT, bias_f16::SLOT, bias_bf16::SLOT].contains(slot)
}

impl Score for Bias {
    fn stage(&self) -> Stage {
        Stage::Biased
    }

    fn slot(&self) -> Slot {
        match self.dtype {
            DType::F32 => SLOT,
            DType::F16 => bias_f16::SLOT,
            DType::Bf16 => bias_bf16::SLOT,
        }
    }

    fn text(&self) -> Option<String> {
        let dtype = match self.dtype {
            DType::F32 => String::new(),
            other => format!("({other})"),
        };
        Some(format!("bias{dtype}{:?}", self.shape.0))
    }

    fn validate(&self, shape: &Shape) -> Result<()> {
        self.shape.validate("bias", shape.scores())
    }

    fn operands(&self, _: &Shape) -> Vec<(Operand, u64)> {
        vec![(Operand::Bias, self.shape.elements())]
    }

    fn parameters(&self) -> Vec<Setting> {
        let strides = STRIDES.into_iter().zip(self.shape.strides());
        strides.map(|(parameter, stride)| parameter.is(stride as u32)).collect()
    }

    fn apply(&self, s: f64, at: &Position, operands: &Operands<'_>) -> f64 {
        let bias = operands.bias[self.shape.index([at.batch, at.head, at.row, at.key])];
        // A bias of −∞ is a mask: it wins over whatever the masked key made of the score.
        if bias == f64::NEG_INFINITY { bias } else { s + bias }
    }

    fn derivative(&self, _: f64, _: &Position, _: &Operands<'_>) -> f64 {
        1.0
    }

    fn entry(&self, at: &Position, _: &Operands<'_>) -> Option<Entry> {
        let index = self.shape.index([at.batch, at.head, at.row, at.key]);
        Some(Entry { operand: Operand::Bias, index, factor: 1.0 })
    }
}
