//! The steps of a backward pass: what each makes, when it is recorded, and its kernel.

use crate::error::{Rejection, Result};
use crate::feature::inner::product;
use crate::feature::score::{alibi, relative};
use crate::kernel::{BackwardParts, Element, KernelSpec, Width};
use crate::plan::Capabilities;
use crate::plan::fit::{element_of, gradient_element, stored_element_of};
use crate::plan::prepare::copies;
use crate::plan::steps::Over;
use crate::problem::{BackwardProblem, Operand, Problem};

/// What a dispatch of the backward pass makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Makes {
    /// The f32 copy of q or k as they meet, where they are prepared.
    Copy(Operand),
    /// q as it is multiplied with the matrix of a general score, where it is rotated first.
    Turned,
    /// Products of q and k.
    Products,
    /// Products of d_o and v.
    Incoming,
    /// Weights and gradients of the products.
    Rows,
    /// What the one-pass kernels need of each row.
    Delta,
    /// What rows leave to the other one-pass kernels, and the gradient of q as it meets unless that is made alone.
    OfRows,
    /// The gradient of q as it meets, alone.
    OfQueries,
    /// The gradients of k as it meets and of v in one pass, or one of them.
    OfKeys,
    /// The gradient of an operand: of v and k key by key, of q row by row, of tables at the end or block by block. Of q
    /// and k as they meet.
    Gradient(Operand),
    /// The gradient of q or k before they were prepared.
    Unprepared(Operand),
}

/// When the dispatches of a step are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Once, before the blocks.
    Before,
    /// Once for each block.
    Blocks,
    /// Once, behind them.
    After,
}

impl Makes {
    pub(crate) fn phase(self) -> Phase {
        match self {
            Self::Copy(_) | Self::Turned => Phase::Before,
            Self::Products | Self::Incoming | Self::Rows => Phase::Blocks,
            Self::Delta | Self::OfRows | Self::OfQueries | Self::OfKeys => Phase::Blocks,
            Self::Gradient(
                Operand::Sinks
                | Operand::HeadScale
                | Operand::ScoreMatrix
                | Operand::ScoreV
                | Operand::Centers,
            )
            | Self::Unprepared(_) => Phase::After,
            Self::Gradient(_) => Phase::Blocks,
        }
    }
}

/// A kernel of the backward pass.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BackwardStep {
    pub(crate) makes: Makes,
    pub(crate) kernel: KernelSpec,
}

/// Steps of a plan before they are fitted to a device.
pub(super) type Steps = Vec<(Makes, KernelSpec)>;

/// f32 copies of q and k where they are rotated, projected or normalised before they meet.
pub(super) fn before(backward: &BackwardProblem, caps: &Capabilities) -> Result<Steps, Rejection> {
    let problem = backward.problem();
    let mut steps = Vec::new();
    for step in copies(problem, caps)? {
        if let Over::Copy { operand, .. } = step.over {
            if needs_turned(backward) && operand == Operand::Q {
                check_turned(problem, caps)?;
                let kernel = step.kernel.clone().turned_only(turned_element(problem));
                steps.push((Makes::Turned, kernel));
            }
            steps.push((Makes::Copy(operand), step.kernel));
        }
    }
    Ok(steps)
}

/// Rows of q as they are rotated are bound whole.
fn check_turned(problem: &Problem, caps: &Capabilities) -> Result<(), Rejection> {
    let rows = problem.copy_rows(Operand::Q);
    let bytes = rows.saturating_mul(4 * u64::from(problem.dim(Operand::Q)));
    let limit = caps.max_binding_bytes.min(caps.max_buffer_bytes);
    if bytes <= limit {
        return Ok(());
    }
    let reason = format!("rotated q needs {bytes} B in one binding, the device allows {limit}");
    Err(Rejection { candidate: "prepare".into(), reason })
}

/// Whether the gradient of a general score's matrix needs rows of q that are rotated first.
fn needs_turned(backward: &BackwardProblem) -> bool {
    backward.wants(Operand::ScoreMatrix) && backward.problem().attention().rotary.is_some()
}

/// Whether the gradient of an operand of rows as it meets the others is needed, for itself or for what prepared it.
pub(super) fn needs_met(backward: &BackwardProblem, operand: Operand) -> bool {
    let learned = [Operand::HeadScale, Operand::ScoreMatrix, Operand::ScoreV];
    let prepares = operand == Operand::Q && learned.iter().any(|x| backward.wants(*x));
    backward.wants(operand) || prepares
}

/// What is done for each block of rows.
pub(super) fn by_blocks(
    backward: &BackwardProblem,
    caps: &Capabilities,
    parts: BackwardParts,
    carry: bool,
) -> Steps {
    let problem = backward.problem();
    let element = |operand| element_of(problem, operand, caps);
    let [q, k, v, o] = [Operand::Q, Operand::K, Operand::V, Operand::O].map(element);
    let [d_q, d_k, d_v] = [(Operand::Q, q), (Operand::K, k), (Operand::V, v)]
        .map(|(operand, read)| gradient_element(backward, operand, read));
    let plain = vec![product::SLOT];
    let inner = problem.attention().inner.slots();
    let keys = |b: Element, d: Element| KernelSpec::backward_keys(problem, b, d, carry);
    let mut steps = vec![
        (Makes::Products, KernelSpec::backward_products(problem, q, k, inner)),
        (Makes::Incoming, KernelSpec::backward_products(problem, o, v, plain)),
        (Makes::Rows, KernelSpec::backward_row(backward, parts)),
    ];
    let mut gradient = |operand, kernel| {
        if needs_met(backward, operand) {
            steps.push((Makes::Gradient(operand), kernel));
        }
    };
    gradient(Operand::V, keys(o, d_v));
    if problem.attention().inner.is_sum() {
        let learned = backward.wants(Operand::ScoreV);
        gradient(Operand::K, KernelSpec::backward_sum_keys(problem, [q, k, d_k], carry));
        gradient(Operand::Q, KernelSpec::backward_sum_rows(problem, [q, k, d_q], learned));
    } else {
        gradient(Operand::K, keys(q, d_k));
        gradient(Operand::Q, KernelSpec::backward_queries(problem, k, d_q));
    }
    gradient(Operand::Bias, KernelSpec::backward_bias());
    gradient(Operand::EdgeBias, KernelSpec::backward_edges(problem));
    for (operand, slot) in
        [(Operand::AlibiSlopes, alibi::SLOT), (Operand::Relative, relative::SLOT)]
    {
        gradient(operand, KernelSpec::backward_table(problem, &slot));
    }
    steps
}

/// What needs the gradients of all blocks.
pub(super) fn after(backward: &BackwardProblem, caps: &Capabilities) -> Steps {
    let problem = backward.problem();
    let mut steps = Vec::new();
    for operand in [Operand::Q, Operand::K].into_iter().filter(|x| problem.prepares(*x)) {
        let factors = operand == Operand::Q && backward.wants(Operand::HeadScale);
        if backward.wants(operand) || factors {
            let stored = stored_element_of(problem, operand, caps);
            let read = Element { width: Width::Single, ..stored };
            let write = gradient_element(backward, operand, stored);
            let kernel = KernelSpec::backward_prepare(problem, operand, read, write);
            steps.push((Makes::Unprepared(operand), kernel));
        }
    }
    for operand in [Operand::Sinks, Operand::HeadScale] {
        if backward.wants(operand) {
            steps.push((Makes::Gradient(operand), KernelSpec::backward_sinks(problem)));
        }
    }
    if backward.wants(Operand::Centers) {
        steps.push((Makes::Gradient(Operand::Centers), KernelSpec::backward_centers()));
    }
    if backward.wants(Operand::ScoreV) {
        steps.push((Makes::Gradient(Operand::ScoreV), KernelSpec::backward_columns()));
    }
    if backward.wants(Operand::ScoreMatrix) {
        let d = element_of(problem, Operand::Q, caps);
        let x = match needs_turned(backward) {
            true => turned_element(problem),
            false => stored_element_of(problem, Operand::Q, caps),
        };
        steps.push((Makes::Gradient(Operand::ScoreMatrix), KernelSpec::backward_matrix(d, x)));
    }
    steps
}

/// How rows of q are written and read as they are rotated, f32 without gaps.
fn turned_element(problem: &Problem) -> Element {
    let four = problem.dim(Operand::Q).is_multiple_of(4);
    Element { width: if four { Width::Vec4 } else { Width::Single }, ..Element::F32X4 }
}
