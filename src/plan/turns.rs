//! Iterations of the loops of one invocation in kernels of gradients, which some drivers end after a number of them.

use crate::kernel::TILE;
use crate::plan::BlockSize;
use crate::plan::fit::keys_of_rows;
use crate::problem::{BackwardProblem, Operand};

/// The most iterations over the keys of a row; no block makes them fewer.
pub(super) fn over_keys(backward: &BackwardProblem) -> u64 {
    let problem = backward.problem();
    let keys = u64::from(keys_of_rows(problem, TILE));
    // Products take 16 keys in 17 turns and load them. Of thresholds 20 rounds are more than occur.
    let rounds = if problem.attention().normalizer.needs_row() { 2 * keys } else { 0 };
    (keys * 5 / 4).max(rounds)
}

/// The most iterations of a kernel that goes over the rows of a block.
pub(super) fn over_rows(backward: &BackwardProblem, block: &BlockSize) -> u64 {
    let problem = backward.problem();
    let a = problem.attention();
    let [batch, heads, rows, keys] = [block.batch, block.heads, block.rows, a.shape.seq_kv];
    let on = |operand: Operand, turns: u64| if backward.wants(operand) { turns } else { 0 };
    let nested = |lengths: &[u32]| {
        let add = |(all, product): (u64, u64), n: &u32| {
            let product = product.saturating_mul(u64::from(*n).max(1));
            (all.saturating_add(product), product)
        };
        lengths.iter().fold((0, 1), add).0
    };
    let strides = a.bias.map(|bias| bias.strides()).unwrap_or([1; 4]);
    let shared = |axis: usize, n: u32| if strides[axis] == 0 { n } else { 1 };
    let of_bias = [shared(0, batch), shared(1, heads), shared(2, rows), shared(3, keys)];
    let table_keys = if a.alibi.is_some() { keys } else { 1 };
    let by_64 = rows.div_ceil(64);
    let all_rows = a.shape.seq_q.div_ceil(64);
    let summed = if a.inner.is_per_head() { 1 } else { a.shape.heads_q };
    // Sums over all rows of q or k, 16 of them in 16 steps and their loads.
    let longest = u64::from(a.shape.seq_q.max(a.shape.seq_kv));
    let pairs = u64::from(a.shape.batch) * u64::from(a.shape.heads_q);
    let of_matrix = pairs.saturating_mul(1 + longest.div_ceil(16) * 21);
    [
        u64::from(a.shape.group()) * u64::from(rows) * 5 / 4,
        on(Operand::Bias, nested(&of_bias)),
        on(Operand::AlibiSlopes, nested(&[batch, by_64, table_keys])),
        on(Operand::Relative, nested(&[batch, by_64, 1])),
        on(Operand::Sinks, nested(&[a.shape.batch, all_rows])),
        on(Operand::HeadScale, nested(&[a.shape.batch, all_rows])),
        on(Operand::ScoreMatrix, of_matrix),
        on(Operand::EdgeBias, nested(&[batch, heads]).saturating_add(32)),
        on(Operand::Centers, nested(&[a.shape.heads_q, 16])),
        on(Operand::ScoreV, nested(&[a.shape.batch, summed, a.shape.seq_q.div_ceil(8)])),
    ]
    .into_iter()
    .max()
    .unwrap_or(0)
}
