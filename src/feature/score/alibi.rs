//! s − slope_h · |i + offset − j|: attention with linear biases (Press et al., 2022).

use super::{Score, Stage};
use crate::error::Result;
use crate::feature::align::Align;
use crate::feature::{Entry, Operand, Operands, Parameter, Position, Setting, Slot, slot};
use crate::tensor::Shape;

/// The key at distance 0 from row 0, where it is given.
const OFFSET: Parameter = Parameter::i32("alibi_offset");

pub(crate) const SLOT: Slot =
    slot!("score", "alibi", OFFSET).reading(&[Operand::AlibiSlopes]).titled("ALiBi");

/// Subtracts a per-head slope times the distance to the key `row + offset`.
///
/// The offset is 0 for [`Align::TopLeft`], `kv_len − q_len` for [`Align::BottomRight`], or given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Alibi {
    /// Which key a row is at distance 0 from.
    pub align: Align,
}

impl Alibi {
    fn distance(&self, at: &Position, operands: &Operands<'_>) -> f64 {
        let offset = self.align.diagonal(at.batch, at.q_len, at.kv_len, operands);
        (i64::from(at.row) + offset - i64::from(at.key)).abs() as f64
    }
}

impl Alibi {
    /// The slopes of the paper for `heads` heads: 2^(−8(h+1)/n) for a power of two n, otherwise those
    /// of the next lower power followed by every other slope of the next higher one.
    pub fn standard_slopes(heads: u32) -> Vec<f32> {
        let geometric =
            |n: u32| (1..=n).map(move |h| (-8.0 * f64::from(h) / f64::from(n)).exp2() as f32);
        if heads == 0 {
            return Vec::new();
        }
        let lower = 1 << heads.ilog2();
        geometric(lower).chain(geometric(2 * lower).step_by(2)).take(heads as usize).collect()
    }
}

impl Score for Alibi {
    fn stage(&self) -> Stage {
        Stage::Biased
    }

    fn slot(&self) -> Slot {
        SLOT
    }

    fn text(&self) -> Option<String> {
        Some(format!("alibi({})", self.align))
    }

    fn validate(&self, _: &Shape) -> Result<()> {
        self.align.validate()
    }

    fn operands(&self, shape: &Shape) -> Vec<(Operand, u64)> {
        vec![(Operand::AlibiSlopes, shape.heads_q.into())]
    }

    fn parameters(&self) -> Vec<Setting> {
        vec![OFFSET.is(self.align.given())]
    }

    fn apply(&self, s: f64, at: &Position, operands: &Operands<'_>) -> f64 {
        s - operands.alibi_slopes[at.head as usize] * self.distance(at, operands)
    }

    fn derivative(&self, _: f64, _: &Position, _: &Operands<'_>) -> f64 {
        1.0
    }

    fn entry(&self, at: &Position, operands: &Operands<'_>) -> Option<Entry> {
        let (operand, index) = (Operand::AlibiSlopes, at.head as usize);
        Some(Entry { operand, index, factor: -self.distance(at, operands) })
    }
}
