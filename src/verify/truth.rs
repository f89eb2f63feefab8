//! What a call should yield: the reference's outputs, each with its measured tolerance.

use crate::error::Result;
use crate::problem::{Operand, Problem, WeightsAt};
use crate::reference::{Inputs, Order, Outputs, emulate};
use crate::tensor::DType;
use crate::verify::compare::{Comparison, Measurement, Tolerance, compare};

/// The reference's outputs of one call and how far from them a kernel may be.
#[derive(Debug, Clone)]
pub struct Truth {
    /// The float64 outputs.
    pub outputs: Outputs,
    o: Tolerance,
    lse: Tolerance,
    weights: Option<Tolerance>,
    row_lens: [usize; 2],
}

impl Truth {
    /// Runs the reference and every emulation of [`Order::ALL`].
    ///
    /// # Errors
    /// An invalid-argument error that names the tensor whose length does not fit the problem.
    pub fn measure(problem: &Problem, inputs: &Inputs<'_>) -> Result<Self> {
        Self::measure_with(problem, inputs, &Order::ALL)
    }

    /// The same for kernels on matrix units, whose operands and weights are f16.
    ///
    /// # Errors
    /// As [`measure`](Self::measure).
    pub fn measure_on_matrix_units(problem: &Problem, inputs: &Inputs<'_>) -> Result<Self> {
        Self::measure_with(problem, inputs, &[Order::ALL, Order::MATRIX].concat())
    }

    /// The same with the given emulations only.
    ///
    /// # Errors
    /// As [`measure`](Self::measure).
    pub fn measure_with(problem: &Problem, inputs: &Inputs<'_>, orders: &[Order]) -> Result<Self> {
        let a = problem.attention();
        let outputs = problem.reference(inputs)?;
        let emulated: Result<Vec<Outputs>> =
            orders.iter().map(|order| emulate(problem, inputs, *order)).collect();
        let emulated = emulated?;
        let row_lens = [a.shape.dim_v as usize, a.shape.seq_kv as usize];
        let of = |pick: fn(&Outputs) -> &[f64], row_len, dtype, unit, lse| {
            let emulated: Vec<&[f64]> = emulated.iter().map(pick).collect();
            let expected = pick(&outputs);
            let (emulated, terms) = (&emulated[..], &[][..]);
            let of = Measurement { expected, emulated, row_len, dtype, unit, lse, terms };
            Tolerance::measured(&of)
        };
        let lse = outputs.lse.as_slice();
        let weights = a.weights.map(|at| {
            let (unit, lse): (f64, &[f64]) =
                if at == WeightsAt::Probabilities { (0.0, lse) } else { (1.0, &[]) };
            of(|x| x.weights.as_deref().unwrap_or_default(), row_lens[1], DType::F32, unit, lse)
        });
        let o = of(|x| &x.o, row_lens[0], a.dtype, 0.0, lse);
        let lse = of(|x| &x.lse, 1, DType::F32, 1.0, &[]);
        Ok(Self { outputs, o, lse, weights, row_lens })
    }

    /// Compares o, gapless `[batch, heads_q, seq_q, dim_v]`.
    pub fn check_o(&self, found: &[f64]) -> Comparison {
        compare(&self.outputs.o, found, self.row_lens[0], &self.o)
    }

    /// Compares the log-sum-exp, `[batch, heads_q, seq_q]`.
    pub fn check_lse(&self, found: &[f64]) -> Comparison {
        compare(&self.outputs.lse, found, 1, &self.lse)
    }

    /// Compares scores or weights, `[batch, heads_q, seq_q, seq_kv]`; `None` when the problem asks
    /// for none.
    pub fn check_weights(&self, found: &[f64]) -> Option<Comparison> {
        let (expected, tolerance) = (self.outputs.weights.as_ref()?, self.weights.as_ref()?);
        Some(compare(expected, found, self.row_lens[1], tolerance))
    }

    /// Compares everything there is in `found`; outputs it leaves empty are skipped unless the
    /// problem yields them.
    pub fn check(&self, problem: &Problem, found: &Outputs) -> Vec<(Operand, Comparison)> {
        let mut list = vec![(Operand::O, self.check_o(&found.o))];
        if problem.attention().lse || !found.lse.is_empty() {
            list.push((Operand::Lse, self.check_lse(&found.lse)));
        }
        let weights = found.weights.as_deref().unwrap_or_default();
        list.extend(self.check_weights(weights).map(|c| (Operand::Weights, c)));
        list
    }
}
