//! Backward: gradients of vectors that are added to rows.

use super::bindings::{Access, Binding};
use super::element::{Element, Width};
use super::generate::glue::table_glue;
use super::kernels::Kernel;
use super::spec::KernelSpec;
use super::twin::{Family, Twin, kernel_file};

pub(super) const TWIN: Twin = Twin {
    family: Family::Alone,
    bindings: |_| vec![(Binding::DTable, Access::ReadWrite)],
    workgroup_bytes: |_| 64 * 4,
    grid: |_, work| [work.columns.div_ceil(8), 1, 1],
    glue: table_glue,
    ..kernel_file!("backward_columns")
};

impl KernelSpec {
    /// Backward: sums of the columns of f32 rows.
    pub fn backward_columns() -> Self {
        let element = Element { width: Width::Single, ..Element::F32X4 };
        Self { elements: vec![(Binding::K, element)], ..Self::empty(Kernel::BackwardColumns) }
    }
}
