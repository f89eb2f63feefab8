//! Backward: q and k before they were rotated, projected or normalised.

use super::bindings::{Access, Binding};
use super::element::{Element, Width};
use super::generate::function;
use super::generate::glue::{copy_glue, rotary_glue};
use super::kernels::Kernel;
use super::spec::KernelSpec;
use super::twin::{Family, Twin, common, kernel_file};
use crate::problem::{Operand, Problem};

pub(super) const TWIN: Twin = Twin {
    family: Family::Alone,
    commons: |_| vec![common!("angle")],
    bindings: |spec| {
        let sums = spec.has_head_scale().then_some((Binding::RowSums, Access::ReadWrite));
        sums.into_iter().collect()
    },
    glue: |out, spec| {
        rotary_glue(out, spec);
        copy_glue(out, spec);
        let store = if spec.has_head_scale() { "row_sums[i] = v;" } else { "" };
        function(out, "row_sums_store(i: u32, v: f32)", store);
    },
    grid: |_, work| [work.rows.div_ceil(64), work.pairs(), 1],
    ..kernel_file!("backward_prepare")
};

impl KernelSpec {
    /// Backward: the gradient of q or k from that of its f32 copy; `read` and `write` are the caller's tensor and its
    /// gradient.
    pub(crate) fn backward_prepare(
        problem: &Problem,
        operand: Operand,
        read: Element,
        write: Element,
    ) -> Self {
        let copy = Element { width: Width::Single, ..Element::F32X4 };
        Self {
            kernel: Kernel::BackwardPrepare,
            elements: vec![(Binding::Q, read), (Binding::K, copy), (Binding::O, write)],
            ..Self::prepare(problem, operand, read, write)
        }
    }

    fn has_head_scale(&self) -> bool {
        self.preparation.is_some_and(|x| x.head_scale)
    }
}
