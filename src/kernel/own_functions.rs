//! What functions of the caller's own say of each pair.

use super::generate::function;
use super::kernels::Kernel;
use super::spec::{Capture, KernelSpec, Writes};
use super::twin::{Twin, kernel_file};
use crate::problem::{Operand, Problem, WeightsAt};

pub(super) const TWIN: Twin = Twin {
    glue: own_glue,
    // As many times as there are functions.
    grid: |_, work| [work.keys.div_ceil(64), work.rows, work.shares * work.pairs()],
    ..kernel_file!("own_functions")
};

/// `own_function(i, s, p)`: the i-th function of the caller's own, score modifiers first.
fn own_glue(out: &mut String, spec: &KernelSpec) {
    let scores = spec.scores.iter().map(|(_, slot)| format!("{}(s, p)", slot.function()));
    let masks = spec.masks.iter().map(|mask| format!("select(0.0, 1.0, {}(p))", mask.function()));
    let cases = scores.chain(masks).enumerate();
    let cases: String =
        cases.map(|(i, call)| format!("case {i}u: {{ return {call}; }} ")).collect();
    let body = format!("switch i {{ {cases}default: {{ return 0.0; }} }}");
    function(out, "own_function(i: u32, s: f32, p: Position) -> f32", &body);
}

impl KernelSpec {
    /// What functions of the caller's own say of each pair.
    pub fn own_functions(problem: &Problem) -> Self {
        let mut ranged = Self::ranged(Kernel::OwnFunctions, problem);
        ranged.masks.retain(|slot| slot.custom);
        let scores = problem.scores();
        let scores = scores.iter().map(|s| (s.stage(), s.slot())).filter(|(_, slot)| slot.custom);
        Self {
            scores: scores.collect(),
            alibi: problem.attention().alibi.map(|alibi| alibi.align.slot()),
            writes: Writes { capture: Capture::At(WeightsAt::AfterBias), ..Writes::NOTHING },
            factor: false,
            dropout: false,
            ..ranged.ignoring(&[Operand::PageTable])
        }
    }
}
