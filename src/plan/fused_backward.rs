//! The fused backward pass: whether it can serve, and its steps.
//!
//! Of each row it needs lse and <d_o, o>, so that no sum over a row must come first; then gradients of q are summed row
//! by row and those of k and v key by key, scores being computed again for each. No scratch but 16 B a row, and no
//! gradient that is read off a plane of scores.

use crate::feature::normalize::Normalizer;
use crate::kernel::{KernelSpec, Tile};
use crate::plan::backward_steps::{Makes, Steps, needs_met};
use crate::plan::fit::{element_of, gradient_element, too_many};
use crate::plan::tile::no_tile_fits;
use crate::plan::tuning::Apart;
use crate::plan::{BlockSize, Capabilities, Path, tuning, turns};
use crate::problem::{Attention, Backward, BackwardProblem, Operand};

/// Whether something is kept of rows: what weights are relative to.
pub(super) fn keeps(attention: &Attention) -> bool {
    attention.normalizer == Normalizer::Softmax
}

/// What a path lays over invocations, or why it cannot serve the call.
pub(super) fn tile(
    backward: &BackwardProblem,
    path: Path,
    caps: &Capabilities,
) -> Result<Tile, String> {
    if let Some(reason) = needs_planes(backward.backward()) {
        return Err(reason);
    }
    let problem = backward.problem();
    let a = problem.attention();
    if keeps(a) && !a.lse {
        return Err("needs the lse of the forward pass (Attention::with_lse)".into());
    }
    let s = a.shape;
    if path == Path::Fused {
        let none =
            || format!("rows of {} channels are too wide for registers", s.dim_qk.max(s.dim_v));
        return tuning::gradient_tile(caps, &s).map(Tile::Rows).ok_or_else(none);
    }
    if a.masks.edges.is_some() {
        return Err("rows of a graph have keys of their own to visit".into());
    }
    // What is looked at for NaN and infinity: k, q and d_o.
    let selects = !backward.problem().masks().is_empty() || a.bias.is_some();
    let tile = tuning::gradient_block_tile(caps, &s, selects);
    tile.map(Tile::Block).ok_or_else(|| no_tile_fits(&s, caps))
}

/// All of the call as one block, or why this path cannot serve it.
pub(super) fn block(
    backward: &BackwardProblem,
    tile: &Tile,
    caps: &Capabilities,
) -> Result<BlockSize, String> {
    let s = backward.problem().attention().shape;
    let (group, turns) = match tile {
        Tile::Block(tile) => (tile.rows, turns::in_tiles(backward, tile)),
        Tile::Rows(tile) => (tile.group_rows(), turns::in_registers(backward, tile)),
        _ => return Err("no such kernel".into()),
    };
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
    if turns > caps.max_loop_iterations.into() {
        return Err(too_many(turns, caps));
    }
    Ok(BlockSize { batch: s.batch, heads: s.heads_q, rows: s.seq_q.max(1), keys: s.seq_kv.max(1) })
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

/// What is done for the whole call; [`block`] has said that it can be.
pub(super) fn steps(backward: &BackwardProblem, tile: Tile, caps: &Capabilities) -> Steps {
    let problem = backward.problem();
    let element = |operand| element_of(problem, operand, caps);
    let [q, k, v, o] = [Operand::Q, Operand::K, Operand::V, Operand::O].map(element);
    let read = [q, k, v, o];
    let mut steps = Steps::new();
    if keeps(problem.attention()) {
        steps.push((Makes::Delta, KernelSpec::fused_backward_delta(backward, o)));
    }
    let written = |operand, read| gradient_element(backward, operand, read);
    let shape = &problem.attention().shape;
    let apart = match tile {
        Tile::Block(_) => tuning::gradients_apart(caps, shape),
        _ => Apart::Nothing,
    };
    let d_q = needs_met(backward, Operand::Q).then_some(written(Operand::Q, q));
    let [with_states, alone] = if apart == Apart::Nothing { [d_q, None] } else { [None, d_q] };
    if with_states.is_some() || keeps(problem.attention()) {
        let kernel = KernelSpec::fused_backward_rows(problem, read, with_states, tile);
        steps.push((Makes::OfRows, kernel));
    }
    if let Some(d_q) = alone {
        let kernel = KernelSpec::fused_backward_queries(problem, read, d_q, tile);
        steps.push((Makes::OfQueries, kernel));
    }
    let [d_k, d_v] = [(Operand::K, k), (Operand::V, v)]
        .map(|(operand, read)| backward.wants(operand).then_some(written(operand, read)));
    let of_keys = match apart {
        Apart::All => vec![[d_k, None], [None, d_v]],
        _ => vec![[d_k, d_v]],
    };
    for made in of_keys.into_iter().filter(|made| made.iter().any(Option::is_some)) {
        let kernel = KernelSpec::fused_backward_keys(problem, read, made, tile);
        steps.push((Makes::OfKeys, kernel));
    }
    steps
}
