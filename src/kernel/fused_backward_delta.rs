//! Backward in one pass: what is needed of each row.

use super::bindings::{Access, Binding};
use super::element::Element;
use super::generate::function;
use super::kernels::Kernel;
use super::spec::{BackwardParts, KernelSpec};
use super::twin::{Twin, kernel_file};
use crate::feature::Parameter;
use crate::problem::{BackwardProblem, Operand};

/// Where the gradient of o starts, modulo 2³².
pub(crate) const D_O_BASE: Parameter = Parameter::u32("d_o_base");
/// Where the gradient of lse starts, modulo 2³².
pub(crate) const D_LSE_BASE: Parameter = Parameter::u32("d_lse_base");

pub(super) const TWIN: Twin = Twin {
    bindings: |spec| {
        let mut all = vec![(Binding::Lse, Access::Read), (Binding::States, Access::ReadWrite)];
        let d_lse = spec.backward.is_some_and(|parts| parts.lse);
        all.extend(d_lse.then_some((Binding::DLse, Access::Read)));
        all
    },
    glue: |out, spec| {
        let d_lse = spec.backward.is_some_and(|parts| parts.lse);
        let load = if d_lse { "return d_lse[params.d_lse_base + i];" } else { "return 0.0;" };
        function(out, "d_lse_load(i: u32) -> f32", load);
    },
    grid: |_, work| [work.rows.div_ceil(64), work.pairs(), 1],
    parameters: &[D_O_BASE, D_LSE_BASE],
    ..kernel_file!("fused_backward_delta")
};

impl KernelSpec {
    /// Backward in one pass: lse and the mean of the incoming gradients, row by row.
    pub(crate) fn fused_backward_delta(backward: &BackwardProblem, o: Element) -> Self {
        let problem = backward.problem();
        let ranged = Self::ranged(Kernel::FusedBackwardDelta, problem).ignoring(&[Operand::Table]);
        Self {
            elements: vec![(Binding::O, o), (Binding::DO, o)],
            backward: Some(BackwardParts {
                lse: backward.backward().from_lse,
                ..BackwardParts::default()
            }),
            // It knows lengths only.
            masks: Vec::new(),
            diagonal: None,
            factor: false,
            dropout: false,
            ..ranged
        }
    }
}
