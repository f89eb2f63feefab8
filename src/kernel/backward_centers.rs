//! Backward: gradients of predicted centres.

use super::bindings::{Access, Binding};
use super::generate::glue::table_glue;
use super::kernels::Kernel;
use super::spec::KernelSpec;
use super::twin::{Family, Twin, kernel_file, spread};

pub(super) const TWIN: Twin = Twin {
    family: Family::Alone,
    bindings: |_| {
        vec![(Binding::CenterSums, Access::ReadWrite), (Binding::DTable, Access::ReadWrite)]
    },
    // One invocation for each of `elements`.
    grid: |_, work| {
        let [x, y] = spread(work.elements.div_ceil(64));
        [x, y, 1]
    },
    glue: table_glue,
    ..kernel_file!("backward_centers")
};

impl KernelSpec {
    /// Backward: the gradients of predicted centres from what the row kernel has left of each row.
    pub(crate) fn backward_centers() -> Self {
        Self::empty(Kernel::BackwardCenters)
    }
}
