//! s · `k_scales[head]`, where k is stored divided by it; v's scale multiplies o.

use super::{Score, Stage};
use crate::feature::{Operand, Operands, Parameter, Position, Setting, Slot, slot};
use crate::tensor::Shape;

/// Scales between a key head's and the next one's; 0 where one serves all.
const STRIDE: Parameter = Parameter::u32("kv_scale_stride");

pub(crate) const SLOT: Slot =
    slot!("score", "key_scale", STRIDE).reading(&[Operand::KScales]).unlisted();

/// What k and v are stored divided by, f32, `k_scales` and `v_scales` among the tensors: k meets q and o is made as if
/// each channel were what its row says times its scale. Appends to a cache do not divide: they store what they get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum KvScales {
    /// One number each, `[1]`.
    Tensor,
    /// One for each head, `[heads_kv]`.
    Head,
}

impl KvScales {
    /// Elements of each of the two tables.
    pub(crate) fn elements(self, shape: &Shape) -> u64 {
        if self == Self::Head { shape.heads_kv.into() } else { 1 }
    }

    /// A word for names of cases, plans and messages.
    pub(crate) fn text(self) -> String {
        format!("kv-scales({})", if self == Self::Head { "head" } else { "tensor" })
    }

    /// The scale of a query head's keys or values.
    pub(crate) fn of(self, scales: &[f64], head: u32, shape: &Shape) -> f64 {
        scales[if self == Self::Head { (head / shape.group()) as usize } else { 0 }]
    }
}

/// The modifier of a call's shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyScale {
    pub(crate) scales: KvScales,
    pub(crate) shape: Shape,
}

impl Score for KeyScale {
    fn stage(&self) -> Stage {
        Stage::Scaled
    }

    fn slot(&self) -> Slot {
        SLOT
    }

    /// The call says it, of both.
    fn text(&self) -> Option<String> {
        None
    }

    /// Both: v's come with k's.
    fn operands(&self, shape: &Shape) -> Vec<(Operand, u64)> {
        [Operand::KScales, Operand::VScales].map(|of| (of, self.scales.elements(shape))).into()
    }

    fn parameters(&self) -> Vec<Setting> {
        vec![STRIDE.is(u32::from(self.scales == KvScales::Head))]
    }

    fn apply(&self, s: f64, at: &Position, operands: &Operands<'_>) -> f64 {
        s * self.scales.of(operands.k_scales, at.head, &self.shape)
    }

    fn derivative(&self, _: f64, at: &Position, operands: &Operands<'_>) -> f64 {
        self.scales.of(operands.k_scales, at.head, &self.shape)
    }
}
