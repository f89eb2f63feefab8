//! c · tanh(s / c): bounds scores smoothly, before bias and masks (Gemma 2).

use super::{Score, Stage};
use crate::error::{Error, Result};
use crate::feature::{Operands, Parameter, Position, Setting, Slot, slot};
use crate::tensor::{Scalar, Shape};

const CAP: Parameter = Parameter::f32("softcap");

pub(crate) const SLOT: Slot = slot!("score", "softcap", CAP);

/// Caps scores to the open interval (−c, c); c > 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Softcap(pub Scalar);

impl Score for Softcap {
    fn stage(&self) -> Stage {
        Stage::Capped
    }

    fn slot(&self) -> Slot {
        SLOT
    }

    fn text(&self) -> Option<String> {
        Some(format!("softcap({:?})", self.0.get()))
    }

    fn validate(&self, _: &Shape) -> Result<()> {
        let cap = self.0.get();
        if cap > 0.0 && cap.is_finite() {
            return Ok(());
        }
        Err(Error::invalid("softcap", cap, "a finite number > 0"))
    }

    fn parameters(&self) -> Vec<Setting> {
        vec![CAP.is(self.0.get())]
    }

    fn apply(&self, s: f64, _: &Position, _: &Operands<'_>) -> f64 {
        let cap = f64::from(self.0.get());
        cap * (s / cap).tanh()
    }

    fn derivative(&self, s: f64, _: &Position, _: &Operands<'_>) -> f64 {
        (s / f64::from(self.0.get())).cosh().powi(-2)
    }
}
