//! Key j is visible to row i iff j − i − diagonal is a multiple of the dilation.

use super::{Kind, Mask, positions};
use crate::error::Result;
use crate::feature::align::Align;
use crate::feature::{Operands, Parameter, Position, Setting, Slot, slot};
use crate::tensor::Shape;

/// Distance between visible keys.
const DILATION: Parameter = Parameter::i32("dilation");

pub(crate) const SLOT: Slot = slot!("mask", "dilated", DILATION);

/// Every n-th key, counted from the diagonal; usually together with a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Dilated {
    /// Distance between visible keys.
    pub step: u32,
    /// Where the diagonal lies.
    pub align: Align,
}

impl Mask for Dilated {
    fn slot(&self) -> Slot {
        SLOT
    }

    fn text(&self) -> String {
        format!("dilated({},{})", self.step, self.align)
    }

    fn align(&self) -> Option<Align> {
        Some(self.align)
    }

    fn validate(&self, _: &Shape) -> Result<()> {
        positions("dilated", self.step)
    }

    fn parameters(&self, _: &Shape) -> Vec<Setting> {
        vec![DILATION.is(self.step as i32)]
    }

    fn keeps(&self, at: &Position, _: &Operands<'_>, _: &Shape) -> bool {
        (i64::from(at.key) - i64::from(at.row) - at.diagonal) % i64::from(self.step) == 0
    }
}

impl Kind for Dilated {
    fn examples(_: &Shape) -> Vec<Self> {
        vec![Self { step: 3, align: Align::TopLeft }]
    }

    fn known(self, _: &Shape) -> Self {
        Self { step: 3, align: self.align.known() }
    }
}
