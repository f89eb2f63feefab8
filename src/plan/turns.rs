//! Iterations of the loops of one invocation in kernels of gradients, which some drivers end after a number of them.

use crate::kernel::{BlockTile, RowTile, TILE};
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

/// The most iterations where rows or keys lie in registers, those within a pair's masks among them.
pub(super) fn in_registers(backward: &BackwardProblem, tile: &RowTile) -> u64 {
    let a = backward.problem().attention();
    let s = a.shape;
    let group = tile.group_rows();
    let pair = 1 + u64::from(tile.rows) * of_pair(backward);
    // Blocks of a stretch or of a step, each with its rows of blocks.
    let [of_span, spans] = a.masks.blocks.map_or([0, 1], |blocks| {
        let (rows, keys) = (blocks.rows.max(1), blocks.keys.max(1));
        [u64::from(group / rows + 2), u64::from(s.seq_kv.div_ceil(keys))]
    });
    let keys = u64::from(keys_of_rows(backward.problem(), group));
    let over_keys = keys.saturating_mul(pair).saturating_add(spans * (3 + of_span));
    let of_step = 1 + of_blocks(backward, 16, group);
    let steps = u64::from(s.seq_q.div_ceil(16));
    let over_rows = u64::from(s.seq_q).saturating_mul(pair).saturating_add(steps * of_step);
    over_keys.max(over_rows.saturating_add(1).saturating_mul(u64::from(s.group())))
}

/// The same where rows and keys lie on tiles.
pub(super) fn in_tiles(backward: &BackwardProblem, tile: &BlockTile) -> u64 {
    let problem = backward.problem();
    let s = problem.attention().shape;
    // An invocation's pairs are gone through four at a time.
    let pairs = u64::from(tile.keys / tile.across)
        * (1 + u64::from(tile.rows / tile.down) * of_pair(backward));
    // Rows or keys of a tile, whichever is owned.
    let side = tile.rows.max(tile.keys);
    // Two products and two sums, of which one tile's count holds one each.
    let products = 2 * tile.of_dim(s.dim_qk.max(s.dim_v)).iterations();
    let of_tile = (u64::from(products) + pairs).saturating_add(of_blocks(backward, side, side));
    let over_keys = keys_of_rows(problem, tile.rows).saturating_add(tile.keys).div_ceil(tile.keys);
    let over_rows = u64::from(s.seq_q.div_ceil(tile.keys)) * u64::from(s.group());
    u64::from(over_keys).max(over_rows).saturating_mul(of_tile)
}

/// What is looked for at a pair: an edge by bisection, at most for its mask, its bias and the bias's derivative; a
/// token's ancestors; ten rounds of random numbers.
fn of_pair(backward: &BackwardProblem) -> u64 {
    let a = backward.problem().attention();
    let edges = a.masks.edges.map_or(0, |_| 3 * (u64::from(a.shape.seq_kv.max(1).ilog2()) + 2));
    let ancestors = a.masks.tree.map_or(0, |_| u64::from(a.shape.seq_q));
    edges + ancestors + if a.dropout.is_some() { 10 } else { 0 }
}

/// Blocks of the block table that are asked whether they are visited, and whether they are whole.
fn of_blocks(backward: &BackwardProblem, rows: u32, keys: u32) -> u64 {
    backward.problem().attention().masks.blocks.map_or(0, |blocks| {
        let (of_rows, of_keys) = (blocks.rows.max(1), blocks.keys.max(1));
        2 * u64::from(keys / of_keys + 2) * u64::from(rows / of_rows + 3)
    })
}
