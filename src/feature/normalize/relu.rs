//! relu(s)^power / divisor.

use super::each;
use crate::feature::{Slot, slot};
use crate::tensor::Scalar;
pub(crate) const SLOT: Slot = slot!("normalize", "relu");

pub(super) fn weights(scores: &[Option<f64>], power: u32, divisor: Scalar, weights: &mut [f64]) {
    // Not f64::max, which drops NaN.
    let relu = |s: f64| if s < 0.0 { 0.0 } else { s };
    each(scores, weights, |s| relu(s).powi(power as i32) / f64::from(divisor.get()));
}
