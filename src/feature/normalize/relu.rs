//! relu(s)^power / divisor.

use super::each;
use crate::feature::{Parameter, Slot, slot};
use crate::tensor::Scalar;

/// 1 / divisor, and the power.
pub(super) const FACTOR: Parameter = Parameter::f32("weight_factor");
pub(super) const POWER: Parameter = Parameter::u32("relu_power");

pub(crate) const SLOT: Slot = slot!("normalize", "relu", FACTOR, POWER);

/// The derivative of a weight by its score; 0 at 0.
pub(super) fn derivative(s: f64, power: u32, divisor: Scalar) -> f64 {
    if s > 0.0 {
        f64::from(power) * s.powi(power as i32 - 1) / f64::from(divisor.get())
    } else {
        0.0
    }
}

pub(super) fn weights(scores: &[Option<f64>], power: u32, divisor: Scalar, weights: &mut [f64]) {
    // Not f64::max, which drops NaN.
    let relu = |s: f64| if s < 0.0 { 0.0 } else { s };
    each(scores, weights, |s| relu(s).powi(power as i32) / f64::from(divisor.get()));
}
