//! 1 / (1 + exp(−(s + bias))).

use super::each;
use crate::feature::{Parameter, Slot, slot};
use crate::tensor::Scalar;

pub(super) const BIAS: Parameter = Parameter::f32("sigmoid_bias");

pub(crate) const SLOT: Slot = slot!("normalize", "sigmoid", BIAS);

pub(super) fn weights(scores: &[Option<f64>], bias: Scalar, weights: &mut [f64]) {
    each(scores, weights, |s| 1.0 / (1.0 + (-(s + f64::from(bias.get()))).exp()));
}
