//! Joins partial results that were computed apart.

use super::bindings::{Access, Binding};
use super::element::Element;
use super::generate::glue::output_glue;
use super::kernels::Kernel;
use super::spec::KernelSpec;
use super::twin::{Family, Twin, kernel_file, spread};

pub(super) const TWIN: Twin = Twin {
    family: Family::Alone,
    // The lse of each part.
    bindings: |_| vec![(Binding::Bias, Access::Read)],
    glue: output_glue,
    invocations: |_| 32,
    grid: |_, work| {
        let [x, y] = spread(work.rows.into());
        [x, y, 1]
    },
    ..kernel_file!("merge_states")
};

impl KernelSpec {
    /// Results of one call over parts of its keys, joined.
    pub fn merge_states(read: Element, write: Element) -> Self {
        Self {
            elements: vec![(Binding::Q, read), (Binding::O, write)],
            lse: true,
            ..Self::empty(Kernel::MergeStates)
        }
    }
}
