//! What gradients should be: the float64 reference's, each with its measured tolerance.
//!
//! The rule is that of [`compare`](mod@crate::verify::compare), with every emulation of [`emulate_backward`] in the
//! place of the forward pass's. A gradient sums terms that cancel, so what f32 arithmetic rounds is measured by the
//! terms ([`backward_magnitudes`]) rather than by what is left of them. Non-finite numbers are not told apart: an ∞
//! that one order of products makes is NaN in another.

use crate::error::Result;
use crate::problem::{BackwardProblem, Operand, Problem};
use crate::reference::{Gradients, Incoming, Inputs, Order, backward_magnitudes, emulate_backward};
use crate::tensor::DType;
use crate::verify::compare::{Comparison, Measurement, Tolerance, compare};

/// The reference's gradients of one call and how far from them a kernel may be.
#[derive(Debug, Clone)]
pub struct GradientTruth {
    /// The float64 gradients.
    pub gradients: Gradients,
    allowed: Vec<Allowed>,
}

/// What is allowed of one gradient.
#[derive(Debug, Clone)]
struct Allowed {
    operand: Operand,
    row_len: usize,
    dtype: DType,
    tolerance: Tolerance,
}

impl GradientTruth {
    /// Runs the reference and every emulation of [`Order::ALL`], for what came in as the kernels are given it.
    ///
    /// # Errors
    /// An invalid-argument error that names the tensor whose length does not fit the problem.
    pub fn measure(
        problem: &BackwardProblem,
        inputs: &Inputs<'_>,
        incoming: &Incoming<'_>,
    ) -> Result<Self> {
        Self::measure_with(problem, inputs, incoming, &Order::ALL)
    }

    /// The same with the given emulations only.
    ///
    /// # Errors
    /// As [`measure`](Self::measure).
    pub fn measure_with(
        problem: &BackwardProblem,
        inputs: &Inputs<'_>,
        incoming: &Incoming<'_>,
        orders: &[Order],
    ) -> Result<Self> {
        let gradients = problem.reference(inputs, incoming)?;
        let magnitudes = backward_magnitudes(problem, inputs, incoming)?;
        let emulated: Result<Vec<Gradients>> = orders
            .iter()
            .map(|order| emulate_backward(problem, inputs, incoming, *order))
            .collect();
        let emulated = emulated?;
        let one = |(operand, expected): (Operand, &[f64])| {
            let call = problem.problem();
            let row_len = row_len(call, operand, expected.len());
            let dtype = problem.gradient_dtype(operand);
            let values = |of: &'_ Gradients| of.get(operand).unwrap_or_default().to_vec();
            let emulated: Vec<Vec<f64>> = emulated.iter().map(values).collect();
            let emulated: Vec<&[f64]> = emulated.iter().map(Vec::as_slice).collect();
            let terms = magnitudes.get(operand).unwrap_or_default();
            let (unit, lse, emulated) = (0.0, &[][..], &emulated[..]);
            let of = Measurement { expected, emulated, row_len, dtype, unit, lse, terms };
            Allowed { operand, row_len, dtype, tolerance: Tolerance::measured(&of) }
        };
        let allowed = gradients.iter().map(one).collect();
        Ok(Self { gradients, allowed })
    }

    /// Compares gradients with the reference's.
    pub fn check(&self, found: &Gradients) -> Vec<(Operand, Comparison)> {
        let one = |allowed: &Allowed| {
            let Allowed { operand, row_len, dtype, tolerance } = allowed;
            let wanted = self.gradients.get(*operand).unwrap_or_default();
            // What the storage type cannot hold is no number either.
            let wanted: Vec<f64> = wanted.iter().map(|x| numbers(*x, dtype.round(*x))).collect();
            let found = found.get(*operand).unwrap_or_default();
            let found: Vec<f64> = found.iter().map(|x| numbers(*x, *x)).collect();
            (*operand, compare(&wanted, &found, *row_len, tolerance))
        };
        self.allowed.iter().map(one).collect()
    }
}

/// A number as it is, anything else as NaN.
fn numbers(x: f64, stored: f64) -> f64 {
    if stored.is_finite() { x } else { f64::NAN }
}

/// Elements of a gradient that are alike: a row of q, k or v, the keys of a bias, what a head has of a table.
fn row_len(problem: &Problem, operand: Operand, elements: usize) -> usize {
    let a = problem.attention();
    let heads = a.shape.heads_q.max(1) as usize;
    let n = match (operand, a.bias) {
        (Operand::Q | Operand::K | Operand::V, _) => problem.dim(operand) as usize,
        (Operand::Bias, Some(shape)) => shape.0[3] as usize,
        (Operand::Relative, _) => elements / heads,
        (Operand::ScoreV | Operand::ScoreMatrix, _) => a.shape.dim_qk as usize,
        _ => 1,
    };
    n.max(1)
}

#[cfg(test)]
mod tests {
    use super::GradientTruth;
    use crate::problem::{Attention, Backward, Operand};
    use crate::reference::{Gradients, Incoming, Inputs};
    use crate::tensor::Shape;

    #[test]
    fn what_is_missing_wrong_or_no_number_fails() -> crate::Result<()> {
        let shape = Shape { seq_q: 2, ..Shape::self_attention(1, 1, 3, 2) };
        let problem = Backward::of(Attention::new(shape)).validate()?;
        let (q, k) = ([0.5, -1.0, 2.0, 0.25], [1.0, 0.5, -0.5, 2.0, 0.0, 1.0]);
        let v = [1.0, -4.0, 3.0, 0.5, 2.0, 2.0];
        let inputs = Inputs { q: &q, k: &k, v: &v, operands: Default::default() };
        let incoming = Incoming { o: &[1.0, -0.5, 0.25, 2.0], ..Default::default() };
        let truth = GradientTruth::measure(&problem, &inputs, &incoming)?;
        let right = problem.reference(&inputs, &incoming)?;
        let with = |operand: Operand, change: &dyn Fn(&mut Vec<f64>)| {
            let mut found = right.clone();
            let mut values = right.get(operand).unwrap_or_default().to_vec();
            change(&mut values);
            found.insert(operand, values);
            let all = truth.check(&found);
            all.iter().filter(|(_, x)| !x.pass).map(|(operand, _)| *operand).collect::<Vec<_>>()
        };
        assert_eq!(with(Operand::Q, &|_| ()), []);
        assert_eq!(with(Operand::Q, &|x| x[1] *= 1.0 + 1e-7), []);
        assert_eq!(with(Operand::Q, &|x| x[1] *= 1.0 + 1e-4), [Operand::Q]);
        assert_eq!(with(Operand::K, &|x| x[5] = f64::NAN), [Operand::K]);
        assert_eq!(with(Operand::V, &|x| x.truncate(5)), [Operand::V]);
        assert_eq!(truth.check(&Gradients::default()).iter().filter(|(_, x)| x.pass).count(), 0);
        Ok(())
    }
}
