//! Key j is visible to row i iff j − i − diagonal is a multiple of the dilation.

use std::ops::Range;

use super::Mask;
use crate::feature::{Operands, Parameter, Position, Setting, Slot, slot};

/// Distance between visible keys.
const DILATION: Parameter = Parameter::i32("dilation");

pub(crate) const SLOT: Slot = slot!("mask", "dilated", DILATION);

/// Every n-th key, counted from the diagonal; usually together with a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Dilated(pub u32);

impl Mask for Dilated {
    fn slot(&self) -> Slot {
        SLOT
    }

    fn parameters(&self) -> Vec<Setting> {
        vec![DILATION.is(self.0 as i32)]
    }

    fn keeps(&self, at: &Position, _: &Operands<'_>) -> bool {
        (i64::from(at.key) - i64::from(at.row) - at.diagonal) % i64::from(self.0) == 0
    }

    fn narrow(&self, _: u32, _: i64, keys: Range<i64>) -> Range<i64> {
        keys
    }
}
