//! Backward: gradients of k through an additive score.

use super::backward_sum_rows::SUM_TILE;
use super::bindings::{Access, Binding};
use super::element::Element;
use super::generate::glue::output_glue;
use super::kernels::Kernel;
use super::spec::{KernelSpec, Writes};
use super::twin::{Twin, common, kernel_file};
use crate::problem::Problem;

pub(super) const TWIN: Twin = Twin {
    backward: true,
    commons: |_| vec![common!("finish_key")],
    bindings: |_| vec![(Binding::Scores, Access::ReadWrite)],
    glue: output_glue,
    grid: |_, work| {
        let pairs = work.pairs() / work.group.max(1);
        [work.columns.div_ceil(SUM_TILE), work.keys.div_ceil(SUM_TILE), pairs]
    },
    ..kernel_file!("backward_sum_keys")
};

impl KernelSpec {
    /// Backward: the gradient of k through an additive score. `carry`: rows come in several blocks.
    pub(crate) fn backward_sum_keys(
        problem: &Problem,
        [q, k, d]: [Element; 3],
        carry: bool,
    ) -> Self {
        Self {
            elements: vec![(Binding::Q, q), (Binding::K, k), (Binding::O, d)],
            inner: problem.attention().inner.slots(),
            writes: Writes { carry, ..Writes::NOTHING },
            ..Self::ranged(Kernel::BackwardSumKeys, problem).without_data_masks()
        }
    }
}
