//! s · (q·k), applied once, in f32, to the finished product.

use super::{Score, Stage};
use crate::error::{Error, Result};
use crate::feature::{Operands, Parameter, Position, Setting, Slot, slot};
use crate::tensor::{Scalar, Shape};

const SCALE: Parameter = Parameter::f32("scale");

pub(crate) const SLOT: Slot = slot!("score", "scale", SCALE).unlisted();

/// Multiplies the product by a constant; 1/√dim_qk unless the caller says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scale(pub Scalar);

impl Score for Scale {
    fn stage(&self) -> Stage {
        Stage::Scaled
    }

    fn slot(&self) -> Slot {
        SLOT
    }

    /// Names of cases say the scale themselves, where a call gives one.
    fn text(&self) -> Option<String> {
        None
    }

    fn validate(&self, _: &Shape) -> Result<()> {
        if self.0.get().is_finite() {
            return Ok(());
        }
        Err(Error::invalid("scale", self.0.get(), "a finite number"))
    }

    fn parameters(&self) -> Vec<Setting> {
        vec![SCALE.is(self.0.get())]
    }

    fn apply(&self, s: f64, _: &Position, _: &Operands<'_>) -> f64 {
        s * f64::from(self.0.get())
    }

    fn derivative(&self, _: f64, _: &Position, _: &Operands<'_>) -> f64 {
        f64::from(self.0.get())
    }
}
