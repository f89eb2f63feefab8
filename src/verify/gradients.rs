//! How near gradients must be to those of the float64 reference.
//!
//! A gradient is a sum over many pairs that may cancel, so its elements are measured against the largest of their
//! tensor. Allowed are half a unit in the last place of the storage type; 2e-5 for sums in f32; and where
//! scores are large 6 · 2⁻²⁴ of the largest, since rounding a score is a relative error of its weight.
//! What is no number in the reference must be none.

use crate::error::Result;
use crate::problem::{BackwardProblem, Operand};
use crate::reference::{Gradients, Inputs, attend};
use crate::tensor::DType;

/// What sums in f32 may lose, as a share of the largest element.
const SUMS: f64 = 2e-5;

/// How one gradient compares.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GradientError {
    /// The largest error as a share of the largest element; infinite where a number is missing or should not be.
    pub error: f64,
    /// What is allowed of it.
    pub allowed: f64,
    /// Where it is.
    pub index: usize,
    /// What was found there.
    pub found: f64,
    /// What the reference has there.
    pub wanted: f64,
}

impl GradientError {
    /// Whether it is near enough.
    pub fn pass(&self) -> bool {
        self.error <= self.allowed
    }

    /// In one line.
    pub fn message(&self) -> String {
        let Self { error, allowed, index, found, wanted } = self;
        format!(
            "largest error {error:.3e} of the largest element, {allowed:.3e} allowed; at {index}: \
             found {found:e}, want {wanted:e}"
        )
    }
}

/// Compares gradients with the reference's, for what came in as both were given it.
///
/// # Errors
/// As [`attend`].
pub fn compare_gradients(
    backward: &BackwardProblem,
    inputs: &Inputs<'_>,
    wanted: &Gradients,
    found: &Gradients,
) -> Result<Vec<(Operand, GradientError)>> {
    let problem = backward.problem();
    // The log-sum-exp is at most the logarithm of the keys from the largest score.
    let lse = attend(problem, inputs)?.lse;
    let finite = lse.iter().filter(|x| x.is_finite());
    let scores = finite.fold(0.0_f64, |most, x| most.max(x.abs())) * 6.0 / f64::from(1 << 24);
    let one = |(operand, wanted): (Operand, &[f64])| {
        let stored = operand.rows().and_then(|_| problem.storage(operand).dtype());
        let stored = match stored {
            Some(DType::F16) => 0.5 / f64::from(1 << 10),
            Some(DType::Bf16) => 0.5 / f64::from(1 << 7),
            Some(DType::F32) | None => 0.0,
        };
        let values = found.get(operand).unwrap_or_default();
        (operand, largest(wanted, values, stored + SUMS + scores))
    };
    // Of one channel that is brought to length 1 nothing depends on q and k, and only rounding is left.
    let a = problem.attention();
    let constant = a.cosine.is_some() && a.shape.dim_qk == 1;
    let compared = |x: &(Operand, &[f64])| !(constant && matches!(x.0, Operand::Q | Operand::K));
    Ok(wanted.iter().filter(compared).map(one).collect())
}

fn largest(wanted: &[f64], found: &[f64], allowed: f64) -> GradientError {
    let finite = wanted.iter().filter(|x| x.is_finite());
    let size = finite.fold(f64::from(f32::MIN_POSITIVE), |most, x| most.max(x.abs()));
    let missing = GradientError {
        error: f64::INFINITY,
        allowed,
        index: found.len().min(wanted.len()),
        found: f64::NAN,
        wanted: f64::NAN,
    };
    if found.len() != wanted.len() {
        return missing;
    }
    let mut worst = GradientError { error: 0.0, index: 0, ..missing };
    for (index, (&found, &wanted)) in found.iter().zip(wanted).enumerate() {
        let error = match (wanted.is_finite(), found.is_finite()) {
            // What is below the smallest normal number drivers may flush.
            (true, true) => ((found - wanted).abs() - f64::from(f32::MIN_POSITIVE)).max(0.0) / size,
            (false, false) => 0.0,
            _ => f64::INFINITY,
        };
        if index == 0 || error > worst.error {
            worst = GradientError { error, allowed, index, found, wanted };
        }
    }
    worst
}

#[cfg(test)]
mod tests {
    use super::largest;

    #[test]
    fn only_what_is_below_the_smallest_normal_number_may_be_flushed() {
        let smallest = f64::from(f32::MIN_POSITIVE);
        assert!(largest(&[0.9 * smallest], &[0.0], 1e-5).pass());
        assert!(!largest(&[1.1 * smallest], &[0.0], 1e-5).pass());
    }

    #[test]
    fn what_is_missing_wrong_or_no_number_fails() {
        let wanted = [1.0, -4.0, f64::NAN];
        assert!(largest(&wanted, &[1.0, -4.0, f64::INFINITY], 1e-6).error == 0.0);
        assert!(!largest(&wanted, &[1.0, -4.0, 0.0], 1e-6).pass());
        assert!(!largest(&wanted, &[1.0, f64::NAN, f64::NAN], 1e-6).pass());
        assert!(!largest(&wanted, &[1.0, -4.0], 1e-6).pass());
        let near = largest(&wanted, &[1.0, -4.0 + 4e-3, f64::NAN], 2e-3);
        assert!(near.pass() && near.index == 1 && (near.error - 1e-3).abs() < 1e-9);
        assert!(!largest(&wanted, &[1.0, -4.0 + 4e-3, f64::NAN], 5e-4).pass());
    }
}
