//! The known-answer call of gradients, and how near a result must be.

use super::known::{KEYS, Known, ROWS, allowed, small, value};
use super::quietly;
use crate::error::Result;
use crate::kernel::KernelSpec;
use crate::plan::{BackwardPlan, Capabilities};
use crate::problem::{BackwardProblem, Operand};
use crate::reference::{Gradients, Incoming, Outputs};

/// The call that a backward plan's kernels are tried with, planned with the same kernels.
pub(super) struct KnownGradients {
    pub(super) plan: BackwardPlan,
    pub(super) tensors: Known,
    /// Gradients of o, of lse and of weights.
    incoming: [Vec<f64>; 3],
}

impl KnownGradients {
    /// `None` where the caller's own call has no pair to try functions of the caller's own with.
    pub(super) fn new(
        plan: &BackwardPlan,
        caps: &Capabilities,
        apart: bool,
    ) -> Result<Option<Self>> {
        let attention = &plan.problem().problem().attention();
        // Keys are owned as rows are, so tiles of either side must be more than one of both.
        let tiles = plan.kernels().into_iter().filter_map(KernelSpec::block_tile);
        let most = tiles.map(|tile| tile.rows.max(tile.keys)).max().unwrap_or(0);
        let [rows, keys] = [ROWS.max(most + 3), KEYS.max(most + 7)];
        let Some(small) = small(attention, rows, keys) else { return Ok(None) };
        let plan = plan.shrunk(small, caps, apart)?;
        let problem = plan.problem().problem();
        let s = problem.attention().shape;
        let asked = plan.problem().backward();
        let drawn = |on: bool, salt: u64, n: u64| -> Vec<f64> {
            (0..if on { n } else { 0 }).map(|i| value(salt, i)).collect()
        };
        let dtype = problem.attention().dtype;
        let o = drawn(true, 101, s.rows() * u64::from(s.dim_v));
        let incoming = [
            o.into_iter().map(|x| dtype.round(x)).collect(),
            drawn(asked.from_lse, 102, s.rows()),
            drawn(asked.from_weights, 103, s.rows() * u64::from(s.seq_kv)),
        ];
        let tensors = Known::new(problem, false);
        Ok(Some(Self { plan, tensors, incoming }))
    }

    pub(super) fn incoming(&self) -> Incoming<'_> {
        let [o, lse, weights] = &self.incoming;
        Incoming { o, lse, weights }
    }

    /// What the forward pass writes, by the reference, where the plan reads it: o as it is stored.
    pub(super) fn outputs(&self) -> Result<Option<Outputs>> {
        let dtype = self.plan.problem().problem().attention().dtype;
        let mut outputs = self.attended()?;
        outputs.iter_mut().flat_map(|x| &mut x.o).for_each(|x| *x = dtype.round(*x));
        Ok(outputs)
    }

    /// The same before it is rounded.
    pub(super) fn attended(&self) -> Result<Option<Outputs>> {
        if !self.plan.reads_outputs() {
            return Ok(None);
        }
        quietly(|| self.plan.problem().problem().reference(&self.tensors.inputs())).map(Some)
    }

    /// The reference's answer.
    pub(super) fn wanted(&self) -> Result<Gradients> {
        quietly(|| self.plan.problem().reference(&self.tensors.inputs(), &self.incoming()))
    }
}

/// Gradients that are 0 but for rounding, as those of one channel that is brought to length 1, are not measured finer.
const LEAST: f64 = 1e-2;

/// The first element of a gradient that is off by more than a correct kernel's can be. Two that are no numbers are as
/// good as each other.
pub(super) fn difference(
    problem: &BackwardProblem,
    operand: Operand,
    found: &Gradients,
    wanted: &Gradients,
) -> Option<String> {
    let allowed = allowed(problem.gradient_dtype(operand));
    let [found, wanted] = [found, wanted].map(|all| all.get(operand).unwrap_or_default());
    // Elements are measured by the largest: most are small, and what is stored in 16 bits may be off by much of them.
    let finite = wanted.iter().filter(|x| x.is_finite());
    let largest = finite.fold(LEAST, |most, x| most.max(x.abs()));
    let near = |i: usize, e: f64| {
        found
            .get(i)
            .is_some_and(|x| (x - e).abs() <= allowed * largest || !x.is_finite() && !e.is_finite())
    };
    let off = (0..wanted.len()).find(|&i| !near(i, wanted[i]))?;
    let (x, e) = (found.get(off).copied().unwrap_or(f64::NAN), wanted[off]);
    Some(format!(
        "wrong in the self-test: gradient of {operand}, element {off} is {x:e}, want {e:e}"
    ))
}
