//! The fused backward pass: whether it can serve, and its steps.
//!
//! Of each row it needs lse and <d_o, o>, so that no sum over a row must come first; then gradients of q are summed row
//! by row and those of k and v key by key, scores being computed again for each. No scratch but 16 B a row, and no
//! gradient that is read off a plane of scores.

use crate::feature::normalize::Normalizer;
use crate::kernel::{KernelSpec, RowTile};
use crate::plan::backward_steps::{Makes, Steps, needs_met};
use crate::plan::fit::{element_of, gradient_element, keys_of_rows, too_many};
use crate::plan::{BlockSize, Capabilities, tuning};
use crate::problem::{Attention, Backward, BackwardProblem, Operand};
use crate::tensor::DType;

/// Whether something is kept of rows: what weights are relative to.
pub(super) fn keeps(attention: &Attention) -> bool {
    attention.normalizer == Normalizer::Softmax
}

/// All of the call as one block, or why this path cannot serve it.
pub(super) fn block(backward: &BackwardProblem, caps: &Capabilities) -> Result<BlockSize, String> {
    if let Some(reason) = needs_planes(backward.backward()) {
        return Err(reason);
    }
    let problem = backward.problem();
    let a = problem.attention();
    if keeps(a) && !a.lse {
        return Err("needs the lse of the forward pass (Attention::with_lse)".into());
    }
    if keeps(a) && a.dtype != DType::F32 {
        return Err(format!(
            "o in {} is too coarse to take the mean of its gradients from",
            a.dtype
        ));
    }
    let s = a.shape;
    let Some(tile) = tile(backward, caps) else {
        return Err(format!("no tile is tuned for rows of {} channels", s.dim_qk.max(s.dim_v)));
    };
    let group = tile.group_rows();
    let most = caps.max_workgroups;
    for (what, n) in [
        ("(batch, head) pairs", u64::from(s.batch) * u64::from(s.heads_q)),
        ("blocks of rows", u64::from(s.seq_q.div_ceil(group.min(64)))),
        ("blocks of keys", u64::from(s.seq_kv.div_ceil(group))),
    ] {
        if n > most.into() {
            return Err(format!("{n} {what}, the device dispatches {most}"));
        }
    }
    let turns = turns(backward, &tile);
    if turns > caps.max_loop_iterations.into() {
        return Err(too_many(turns, caps));
    }
    Ok(BlockSize { batch: s.batch, heads: s.heads_q, rows: s.seq_q.max(1), keys: s.seq_kv.max(1) })
}

/// The most iterations of all loops of one invocation, those within a pair's masks among them.
fn turns(backward: &BackwardProblem, tile: &RowTile) -> u64 {
    let a = backward.problem().attention();
    let s = a.shape;
    let group = tile.group_rows();
    // What is looked for at each of the pairs of a turn: an edge by bisection, at most for its mask, its bias and the
    // bias's derivative; a token's ancestors; ten rounds of random numbers.
    let edges = a.masks.edges.map_or(0, |_| 3 * (u64::from(s.seq_kv.max(1).ilog2()) + 2));
    let ancestors = a.masks.tree.map_or(0, |_| u64::from(s.seq_q));
    let rounds = if a.dropout.is_some() { 10 } else { 0 };
    let pair = 1 + u64::from(tile.rows) * (edges + ancestors + rounds);
    // Blocks of a stretch or of a step, each with its rows of blocks.
    let [of_span, of_step, spans] = a.masks.blocks.map_or([0, 0, 1], |blocks| {
        let (rows, keys) = (blocks.rows.max(1), blocks.keys.max(1));
        let visited = 2 * u64::from(group / keys + 2) * u64::from(16 / rows + 3);
        [u64::from(group / rows + 2), visited, u64::from(s.seq_kv.div_ceil(keys))]
    });
    let keys = u64::from(keys_of_rows(backward.problem(), group));
    let over_keys = keys.saturating_mul(pair).saturating_add(spans * (3 + of_span));
    let steps = u64::from(s.seq_q.div_ceil(16));
    let over_rows = u64::from(s.seq_q).saturating_mul(pair).saturating_add(steps * (1 + of_step));
    over_keys.max(over_rows.saturating_add(1).saturating_mul(u64::from(s.group())))
}

/// What is read off scores, or sums over a row of them.
fn needs_planes(asked: &Backward) -> Option<String> {
    let a = &asked.attention;
    let served = |operand: &Operand| {
        matches!(
            operand,
            Operand::Q | Operand::K | Operand::V | Operand::HeadScale | Operand::ScoreMatrix
        )
    };
    if let Some(operand) = asked.wanted.iter().find(|operand| !served(operand)) {
        return Some(format!(
            "the gradient of {operand} is read off scores, which it does not keep"
        ));
    }
    if asked.from_weights {
        return Some("gradients of returned weights come in for each score".into());
    }
    if a.inner.is_sum() {
        return Some("additive scores are no products".into());
    }
    a.normalizer.needs_row().then(|| format!("{} needs the whole row", a.normalizer.name()))
}

fn tile(backward: &BackwardProblem, caps: &Capabilities) -> Option<RowTile> {
    tuning::gradient_tile(caps, &backward.problem().attention().shape)
}

/// What is done for the whole call; [`block`] has said that it can be.
pub(super) fn steps(backward: &BackwardProblem, caps: &Capabilities) -> Steps {
    let problem = backward.problem();
    let Some(tile) = tile(backward, caps) else { return Steps::new() };
    let element = |operand| element_of(problem, operand, caps);
    let [q, k, v, o] = [Operand::Q, Operand::K, Operand::V, Operand::O].map(element);
    let read = [q, k, v, o];
    let mut steps = Steps::new();
    if keeps(problem.attention()) {
        steps.push((Makes::Delta, KernelSpec::fused_backward_delta(backward, o)));
    }
    let written = |operand, read| gradient_element(backward, operand, read);
    let d_q = needs_met(backward, Operand::Q).then_some(written(Operand::Q, q));
    if d_q.is_some() || keeps(problem.attention()) {
        steps.push((Makes::OfRows, KernelSpec::fused_backward_rows(problem, read, d_q, tile)));
    }
    let of_keys = [(Operand::K, k), (Operand::V, v)]
        .map(|(operand, read)| backward.wants(operand).then_some(written(operand, read)));
    if of_keys.iter().any(Option::is_some) {
        let kernel = KernelSpec::fused_backward_keys(problem, read, of_keys, tile);
        steps.push((Makes::OfKeys, kernel));
    }
    steps
}
