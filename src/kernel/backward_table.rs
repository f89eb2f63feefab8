//! Backward: gradients of the tables of score modifiers.

use super::bindings::{Access, Binding};
use super::generate::function;
use super::kernels::Kernel;
use super::spec::KernelSpec;
use super::twin::{Twin, kernel_file};
use crate::feature::{Parameter, Slot};
use crate::problem::{Operand, Problem};

/// Elements of a head.
pub(crate) const TABLE_WIDTH: Parameter = Parameter::u32("table_width");

pub(super) const TWIN: Twin = Twin {
    backward: true,
    bindings: |_| vec![(Binding::Entries, Access::ReadWrite), (Binding::DTable, Access::ReadWrite)],
    glue: |out, spec| {
        for (_, slot) in &spec.scores {
            let name = slot.function();
            let signature = "table_keys(p: Position, element: u32) -> vec2<i32>";
            function(out, signature, &format!("return {name}_keys(p, element);"));
            let body = format!("return {name}_entry(p);");
            function(out, "table_entry(p: Position) -> f32", &body);
        }
    },
    workgroup_bytes: |_| 64 * 4,
    grid: |_, work| [work.elements.min(u64::from(u32::MAX)) as u32, work.heads, 1],
    parameters: &[TABLE_WIDTH],
    ..kernel_file!("backward_table")
};

impl KernelSpec {
    /// Backward: the gradient of the table of one of the call's score modifiers.
    pub(crate) fn backward_table(problem: &Problem, slot: &Slot) -> Self {
        let ranged = Self::ranged(Kernel::BackwardTable, problem).ignoring(&[Operand::Table]);
        let alibi = problem.attention().alibi.map(|alibi| alibi.align.slot());
        let scores = problem.scores();
        let of = scores.iter().filter(|score| score.slot() == *slot);
        Self {
            // It knows lengths only.
            masks: Vec::new(),
            diagonal: None,
            factor: false,
            dropout: false,
            scores: of.map(|score| (score.stage(), score.slot())).collect(),
            alibi,
            ..ranged
        }
    }
}
