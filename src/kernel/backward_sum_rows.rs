//! Backward: gradients of q through an additive score.

use super::bindings::{Access, Binding};
use super::element::Element;
use super::generate::function;
use super::kernels::Kernel;
use super::spec::{BackwardParts, KernelSpec};
use super::twin::{Twin, kernel_file};
use crate::problem::Problem;

/// Channels, rows and keys of a workgroup of the kernels for additive scores.
pub(crate) const SUM_TILE: u32 = 16;

pub(super) const TWIN: Twin = Twin {
    backward: true,
    bindings: |spec| {
        let parts = spec.backward.filter(|parts| parts.row_sums);
        let mut all = vec![(Binding::Scores, Access::ReadWrite)];
        all.extend(parts.map(|_| (Binding::RowSums, Access::ReadWrite)));
        all
    },
    glue: |out, spec| {
        let kept = spec.backward.is_some_and(|parts| parts.row_sums);
        let store = if kept { "row_sums[i] = v;" } else { "" };
        function(out, "row_sums_store(i: u32, v: f32)", store);
    },
    grid: |_, work| [work.columns.div_ceil(SUM_TILE), work.rows.div_ceil(SUM_TILE), work.pairs()],
    ..kernel_file!("backward_sum_rows")
};

impl KernelSpec {
    /// Backward: the gradient of q through an additive score; `learned`: and each row's part in that of its weights.
    pub(crate) fn backward_sum_rows(
        problem: &Problem,
        [q, k, d]: [Element; 3],
        learned: bool,
    ) -> Self {
        let parts = BackwardParts { row_sums: learned, ..BackwardParts::default() };
        Self {
            elements: vec![(Binding::Q, q), (Binding::K, k), (Binding::O, d)],
            inner: problem.attention().inner.slots(),
            backward: Some(parts),
            ..Self::ranged(Kernel::BackwardSumRows, problem).without_data_masks()
        }
    }
}
