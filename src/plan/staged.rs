//! The staged path: whether it can serve, and its kernels.

use crate::error::Rejection;
use crate::feature::normalize::Normalizer;
use crate::kernel::{KernelSpec, Tile};
use crate::plan::fit::{check_resources, element_of, fitted};
use crate::plan::matrix::square;
use crate::plan::steps::{Over, Schedule, Step};
use crate::plan::{BlockSize, Capabilities, Path, Policy};
use crate::problem::{Operand, Problem};

/// Scores in scratch: QKᵀ, row softmax, weighted sum; both products on matrix units where `matrix` says so.
pub(super) fn schedule(
    problem: &Problem,
    caps: &Capabilities,
    policy: &Policy,
    matrix: bool,
) -> Result<Schedule, Rejection> {
    let a = problem.attention();
    let tile = matrix.then(|| square(problem, caps)).transpose()?;
    if matrix && a.paged.is_some() {
        let reason = "keys in pages are staged without matrix units only";
        return Err(Rejection { candidate: "staged-matrix".into(), reason: reason.into() });
    }
    let block = BlockSize::choose(problem, caps, policy, Path::Staged)?;
    if a.normalizer == Normalizer::Monotonic && block.rows < a.shape.seq_q {
        let reason = format!(
            "monotonic attention goes from row to row, but {} of {} rows fit a block",
            block.rows, a.shape.seq_q
        );
        return Err(Rejection { candidate: "staged".into(), reason });
    }
    let element = |operand| element_of(problem, operand, caps);
    let carry = block.splits_keys(problem);
    let mut score = KernelSpec::staged_score(problem, element(Operand::Q), element(Operand::K));
    let normalize = KernelSpec::staged_normalize(problem);
    let [v, o] = [Operand::V, Operand::O].map(element);
    let mut value = KernelSpec::staged_value(problem, v, o, carry);
    let tile = tile.map(Tile::Matrix);
    (score.tile, value.tile) = (tile, tile);
    let steps = [(score, Over::KeyRanges), (normalize, Over::Rows), (value, Over::KeyRanges)]
        .map(|(kernel, over)| Step { kernel: fitted(kernel, problem, 0, caps), over });
    for step in &steps {
        check_resources(&step.kernel, caps)?;
    }
    let path = if matrix { Path::StagedMatrix } else { Path::Staged };
    let plan = Schedule { path, steps: steps.into(), block, ..Schedule::empty() };
    Ok(plan.laid_out(problem, caps))
}
