//! `mask[b, h, i, j]`, one bit each from the lowest of each byte on, broadcast over any of the four dimensions; 1 =
//! attend.

use super::{Kind, Mask};
use crate::error::{Error, Result};
use crate::feature::{Operand, Operands, Parameter, Position, Setting, Slot, slot};
use crate::tensor::{Broadcast, Shape};

/// Bits between neighbours along batch, head, row and key; 0 where one serves all.
const STRIDES: [Parameter; 4] = [
    Parameter::u32("bits_stride_batch"),
    Parameter::u32("bits_stride_head"),
    Parameter::u32("bits_stride_row"),
    Parameter::u32("bits_stride_key"),
];

/// Kernels count bits in u32 from where a binding starts, which may be an offset's alignment before the mask.
const MOST: u64 = (1 << 32) - (1 << 16);

pub(crate) const SLOT: Slot = slot!("mask", "bits", STRIDES[0], STRIDES[1], STRIDES[2], STRIDES[3])
    .of_data()
    .titled("mask in bits");

/// A boolean tensor of the given broadcast shape, an eighth as large as [`Dense`](super::Dense): `mask` among the
/// tensors, bit i % 8 of byte i / 8 for element i, without gaps between rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(transparent))]
pub struct Bits(pub Broadcast);

impl Mask for Bits {
    fn slot(&self) -> Slot {
        SLOT
    }

    fn text(&self) -> String {
        format!("bits{:?}", self.0.0)
    }

    fn validate(&self, shape: &Shape) -> Result<()> {
        self.0.validate("mask bits", shape.scores())?;
        let bits = self.0.elements();
        if bits > MOST {
            return Err(Error::invalid("mask bits", bits, format!("at most {MOST}")));
        }
        Ok(())
    }

    fn operands(&self, _: &Shape) -> Vec<(Operand, u64)> {
        vec![(Operand::Mask, self.0.elements())]
    }

    fn parameters(&self, _: &Shape) -> Vec<Setting> {
        let strides = STRIDES.into_iter().zip(self.0.strides());
        strides.map(|(parameter, stride)| parameter.is(stride as u32)).collect()
    }

    fn keeps(&self, at: &Position, operands: &Operands<'_>, _: &Shape) -> bool {
        operands.mask[self.0.index([at.batch, at.head, at.row, at.key])]
    }
}

impl Kind for Bits {
    fn examples(shape: &Shape) -> Vec<Self> {
        let [batch, _, _, keys] = shape.scores();
        vec![Self(Broadcast([batch, 1, 1, keys])), Self(Broadcast(shape.scores()))]
    }

    fn known(self, shape: &Shape) -> Self {
        Self(self.0.fitted(shape))
    }
}
