//! The cost model: the only place that counts work and bytes.
//!
//! Forward work is 2 · pairs · (dim_qk + dim_v) FLOP, where `pairs` counts the (row, key) pairs that
//! lengths, causality and window leave, or the edges of a graph; masks given as data do not lower it. Traffic is one read
//! of q, k, v (and mask, bias) and one write of o (and lse, weights).

use crate::feature::Operands;
use crate::problem::{Operand, Problem};

/// (row, key) pairs that lengths, causal mask and window leave visible, over all heads.
pub fn visible_pairs(problem: &Problem, operands: &Operands<'_>) -> u64 {
    let shape = problem.attention().shape;
    if let Some(edges) = problem.attention().edges {
        return u64::from(shape.batch) * u64::from(shape.heads_q) * u64::from(edges.count);
    }
    let one_head: u64 = (0..shape.batch)
        .map(|batch| {
            let mut at = problem.position(batch, 0, 0, operands);
            (0..at.q_len)
                .map(|row| {
                    at.row = row;
                    problem.key_range(&at).len() as u64
                })
                .sum::<u64>()
        })
        .sum();
    one_head * u64::from(shape.heads_q)
}

/// Forward FLOPs: 2 · pairs · (dim_qk + dim_v).
pub fn flops(problem: &Problem, operands: &Operands<'_>) -> u64 {
    let shape = problem.attention().shape;
    2 * visible_pairs(problem, operands) * u64::from(shape.dim_qk + shape.dim_v)
}

/// Bytes that any implementation must move: each input read once, as far as the sequences' lengths reach, each
/// output written once.
pub fn min_bytes(problem: &Problem, operands: &Operands<'_>) -> u64 {
    let a = problem.attention();
    let s = a.shape;
    let rows: u64 = (0..s.batch).map(|b| u64::from(problem.lengths(b, operands).0)).sum();
    let q_and_o = rows * u64::from(s.heads_q) * u64::from(problem.dim(Operand::Q) + s.dim_v);
    let side: u64 = problem
        .operands()
        .iter()
        .filter(|(operand, _)| *operand > Operand::O)
        .map(|&(operand, n)| if operand == Operand::Mask { n } else { 4 * n })
        .sum();
    let keys: u64 = (0..a.shape.batch).map(|b| u64::from(problem.lengths(b, operands).1)).sum();
    // What is stored of k and v beside their channels is read as well.
    let stored = |operand| {
        let row = u64::from(problem.row_units(operand)) * u64::from(a.shape.heads_kv);
        problem.storage(operand).bytes(keys * row)
    };
    q_and_o * a.dtype.bytes() + stored(Operand::K) + stored(Operand::V) + side
}
