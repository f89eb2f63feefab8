//! Joins the shares of `SplitForward`.

use super::bindings::Binding;
use super::element::Element;
use super::generate::glue::{output_glue, start_glue};
use super::generate::registers::row_types;
use super::kernels::Kernel;
use super::spec::{KernelSpec, Writes};
use super::split_forward::partial_results;
use super::twin::{Twin, common, kernel_file};
use crate::problem::{Operand, Problem};

pub(super) const TWIN: Twin = Twin {
    commons: |spec| {
        let mut commons = vec![common!("normalizer"), common!("finish")];
        commons.extend(spec.is_each().then_some(common!("normalize_each")));
        commons
    },
    bindings: partial_results,
    glue: |out, spec| {
        *out += &row_types(1);
        start_glue(out, spec);
        output_glue(out, spec);
    },
    invocations: |_| 32,
    ..kernel_file!("split_merge")
};

impl KernelSpec {
    /// Joins shares into o and lse.
    pub fn split_merge(problem: &Problem, o: Element) -> Self {
        let a = problem.attention();
        let ranged = Self::ranged(Kernel::SplitMerge, problem);
        Self {
            elements: vec![(Binding::O, o)],
            normalize: Some(a.normalizer.slot()),
            writes: Writes { lse: a.lse, ..Writes::NOTHING },
            masks: Vec::new(),
            diagonal: None,
            factor: false,
            ..ranged.ignoring(&[Operand::PageTable, Operand::Table])
        }
        .reading(a.sinks, &[Operand::Sinks])
    }
}
