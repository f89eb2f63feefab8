//! `mask[b, h, i, j]`, one byte each, broadcast over any of the four dimensions; nonzero = attend.

use std::ops::Range;

use super::Mask;
use crate::feature::{Operands, Parameter, Position, Setting, Slot, slot};
use crate::tensor::Broadcast;

/// Elements between neighbours along batch, head, row and key; 0 where one serves all.
const STRIDES: [Parameter; 4] = [
    Parameter::u32("mask_stride_batch"),
    Parameter::u32("mask_stride_head"),
    Parameter::u32("mask_stride_row"),
    Parameter::u32("mask_stride_key"),
];

pub(crate) const SLOT: Slot =
    slot!("mask", "dense", STRIDES[0], STRIDES[1], STRIDES[2], STRIDES[3]).of_data();

/// A boolean tensor of the given broadcast shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Dense(pub Broadcast);

impl Mask for Dense {
    fn slot(&self) -> Slot {
        SLOT
    }

    fn parameters(&self) -> Vec<Setting> {
        let strides = STRIDES.into_iter().zip(self.0.strides());
        strides.map(|(parameter, stride)| parameter.is(stride as u32)).collect()
    }

    fn keeps(&self, at: &Position, operands: &Operands<'_>) -> bool {
        operands.mask[self.0.index([at.batch, at.head, at.row, at.key])]
    }

    fn narrow(&self, _: u32, _: i64, keys: Range<i64>) -> Range<i64> {
        keys
    }
}
