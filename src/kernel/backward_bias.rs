//! Backward: gradient of the bias.

use super::bindings::{Access, Binding};
use super::kernels::Kernel;
use super::spec::KernelSpec;
use super::twin::{Family, Twin, kernel_file, spread};
use crate::feature::Parameter;

/// Sequences that are summed over.
pub(crate) const BATCH_N: Parameter = Parameter::u32("bias_batch_n");

pub(super) const TWIN: Twin = Twin {
    family: Family::Alone,
    bindings: |_| vec![(Binding::Entries, Access::ReadWrite), (Binding::DTable, Access::ReadWrite)],
    // One invocation for each of `elements`.
    grid: |_, work| {
        let [x, y] = spread(work.elements.div_ceil(64));
        [x, y, 1]
    },
    parameters: &[BATCH_N],
    ..kernel_file!("backward_bias")
};

impl KernelSpec {
    /// Backward: the gradient of the bias.
    pub(crate) fn backward_bias() -> Self {
        Self::empty(Kernel::BackwardBias)
    }
}
