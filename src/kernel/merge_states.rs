//! Joins partial results that were computed apart.

use super::bindings::{Access, Binding};
use super::element::Element;
use super::generate::glue::output_glue;
use super::kernels::Kernel;
use super::spec::{KernelSpec, Writes};
use super::twin::{Family, Twin, kernel_file, spread};
use crate::feature::Parameter;

/// Where the lse of the parts starts.
pub(crate) const PARTS_LSE_BASE: Parameter = Parameter::u32("parts_lse_base");

pub(super) const TWIN: Twin = Twin {
    family: Family::Alone,
    bindings: |_| vec![(Binding::PartsLse, Access::Read)],
    glue: output_glue,
    invocations: |_| 32,
    grid: |_, work| {
        let [x, y] = spread(work.rows.into());
        [x, y, 1]
    },
    parameters: &[PARTS_LSE_BASE],
    ..kernel_file!("merge_states")
};

impl KernelSpec {
    /// Results of one call over parts of its keys, joined.
    pub fn merge_states(read: Element, write: Element) -> Self {
        Self {
            elements: vec![(Binding::Q, read), (Binding::O, write)],
            writes: Writes { lse: true, ..Writes::NOTHING },
            ..Self::empty(Kernel::MergeStates)
        }
    }
}
