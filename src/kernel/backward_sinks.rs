//! Backward: gradients of sinks and of factors of heads.

use super::bindings::{Access, Binding};
use super::generate::glue::table_glue;
use super::kernels::Kernel;
use super::spec::KernelSpec;
use super::twin::{Twin, kernel_file};
use crate::problem::{Operand, Problem};

pub(super) const TWIN: Twin = Twin {
    bindings: |_| vec![(Binding::RowSums, Access::ReadWrite), (Binding::DTable, Access::ReadWrite)],
    workgroup_bytes: |_| 64 * 4,
    grid: |_, work| [work.heads, 1, 1],
    glue: table_glue,
    ..kernel_file!("backward_sinks")
};

impl KernelSpec {
    /// Backward: the gradients of sinks or of factors of heads, from the parts of their rows.
    pub(crate) fn backward_sinks(problem: &Problem) -> Self {
        let ranged = Self::ranged(Kernel::BackwardSinks, problem).ignoring(&[Operand::Table]);
        // It knows lengths only.
        Self { masks: Vec::new(), diagonal: None, factor: false, dropout: false, ..ranged }
    }
}
