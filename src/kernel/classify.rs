//! Builds a block table from masks given as data.

use super::bindings::Access;
use super::generate::function;
use super::kernels::Kernel;
use super::spec::{BlockTable, KernelSpec};
use super::twin::{Twin, kernel_file};
use crate::feature::Parameter;
use crate::feature::score::bias;
use crate::problem::{Operand, Problem};

/// Rows of a block that are looked at.
pub(crate) const BLOCK_SCAN: Parameter = Parameter::u32("block_scan");

pub(super) const TWIN: Twin = Twin {
    tables: Some(Access::ReadWrite),
    glue: data_glue,
    // sh_some and sh_hidden
    workgroup_bytes: |_| 8,
    grid: |_, work| {
        work.blocks.map_or([0; 3], |blocks| {
            let words = work.keys.div_ceil(blocks.keys).div_ceil(16);
            [words, work.rows.div_ceil(blocks.rows), work.pairs()]
        })
    },
    parameters: &[BLOCK_SCAN],
    ..kernel_file!("classify")
};

/// `keep_data(p)`: what the masks that a block table is built from say.
fn data_glue(out: &mut String, spec: &KernelSpec) {
    let mut terms: Vec<String> =
        spec.masks.iter().map(|mask| format!("{}(p)", mask.function())).collect();
    terms.extend(
        spec.scores.iter().map(|(_, slot)| format!("!is_masked({}(0.0, p))", slot.function())),
    );
    terms.extend(terms.is_empty().then(|| "true".to_owned()));
    function(out, "keep_data(p: Position) -> bool", &format!("return {};", terms.join(" && ")));
}

impl KernelSpec {
    /// A block table from the masks that are data, and from the caller's own where `functions` says so.
    pub fn classify(problem: &Problem, functions: bool) -> Self {
        let ranged = Self::ranged(Kernel::Classify, problem);
        let mut masks = ranged.masks.clone();
        masks.retain(|slot| slot.is_data || (functions && slot.custom));
        let scores = problem.scores();
        let bias = scores.iter().map(|s| (s.stage(), s.slot())).filter(|(_, s)| bias::is_bias(s));
        Self {
            masks,
            scores: bias.collect(),
            blocks: Some(BlockTable::Classified),
            ..Self::empty(Kernel::Classify)
        }
        .reading(functions && ranged.reads(Operand::Table), &[Operand::Table])
    }
}
