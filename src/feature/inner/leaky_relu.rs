//! x, or slope · x below 0: graph attention's additive score.

use crate::feature::{Parameter, Slot, slot};

/// The slope below 0.
pub(super) const SLOPE: Parameter = Parameter::f32("leaky_slope");

pub(crate) const SLOT: Slot = slot!("inner", "leaky_relu", SLOPE);
