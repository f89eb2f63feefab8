//! The parameter block of a plan: what every dispatch of it shares.

use crate::feature::mask::Mask;
use crate::kernel::{
    BLOCK_SCAN, DIM_SOURCE, POSITIONS_ROW, POSITIONS_STRIDE, Params, ROTARY_FROM, ROTARY_START,
    SCORE_STRIDE, SPLIT_N, SPLIT_SIZE, Work,
};
use crate::plan::{BlockSize, Plan, Shares};
use crate::problem::{Operand, Problem};

/// The parameters that every dispatch of a plan shares, beside the places of `tables`.
pub(super) fn base_params(plan: &Plan, tables: &Params) -> Params {
    let mut params = problem_params(plan.problem(), tables);
    if let Some((blocks, scan)) = plan.blocks() {
        let shape = plan.problem().attention().shape;
        params = params.with(blocks.parameters(&shape)).with([BLOCK_SCAN.is(scan)]);
    }
    if let Some(Shares { n, keys }) = plan.shares() {
        params = params.with([SPLIT_N.is(n), SPLIT_SIZE.is(keys)]);
    }
    params
}

/// What of them follows from the problem.
pub(super) fn problem_params(problem: &Problem, tables: &Params) -> Params {
    let s = problem.attention().shape;
    let stride = |operand| {
        let strides = problem.read_strides(operand);
        [strides.batch as u32, strides.head as u32, strides.row as u32]
    };
    let [q_stride_batch, q_stride_head, q_stride_row] = stride(Operand::Q);
    let [k_stride_batch, k_stride_head, k_stride_row] = stride(Operand::K);
    let [v_stride_batch, v_stride_head, v_stride_row] = stride(Operand::V);
    let [o_stride_batch, o_stride_head, o_stride_row] = stride(Operand::O);
    let common = Params {
        heads_q: s.heads_q,
        group: s.group(),
        seq_q: s.seq_q,
        seq_kv: s.seq_kv,
        dim_qk: s.dim_qk,
        dim_v: s.dim_v,
        q_stride_batch,
        q_stride_head,
        q_stride_row,
        k_stride_batch,
        k_stride_head,
        k_stride_row,
        v_stride_batch,
        v_stride_head,
        v_stride_row,
        o_stride_batch,
        o_stride_head,
        o_stride_row,
        minus_infinity: f32::NEG_INFINITY.to_bits(),
        ..*tables
    };
    let stride = BlockSize::score_stride(problem) as u32;
    common.with(problem.parameters()).with([SCORE_STRIDE.is(stride)])
}

/// The work of what goes over all rows of q or k, and its parameters: the caller's rows as q, an f32 copy of them as o.
pub(super) fn copy_params(problem: &Problem, operand: Operand, base: &Params) -> (Work, Params) {
    let a = problem.attention();
    let (heads, rows) = (problem.heads(operand), problem.seq(operand));
    let [from, to] = [problem.strides(operand), problem.read_strides(operand)];
    let (rotary_from, rotary_start) = match a.rotary {
        Some(rotary) if operand == Operand::K => (rotary.keys_from, rotary.k_start),
        Some(rotary) => (0, rotary.q_start),
        None => (0, 0),
    };
    let ids = a.rotary.and_then(|rotary| rotary.ids_of(operand == Operand::K, &a.shape));
    let ids_row = ids.map_or(0, |(_, ids)| ids);
    let shared_ids = a.rotary.is_some_and(|rotary| rotary.shared_ids);
    let params = Params {
        head_n: heads,
        row_n: rows,
        q_stride_batch: from.batch as u32,
        q_stride_head: from.head as u32,
        q_stride_row: from.row as u32,
        o_stride_batch: to.batch as u32,
        o_stride_head: to.head as u32,
        o_stride_row: to.row as u32,
        ..*base
    };
    let params = params.with([
        DIM_SOURCE.is(problem.dim(operand)),
        ROTARY_FROM.is(rotary_from),
        ROTARY_START.is(rotary_start),
        POSITIONS_ROW.is(ids_row),
        POSITIONS_STRIDE.is(if shared_ids { 0 } else { ids_row }),
    ]);
    (Work { batch: a.shape.batch, heads, rows, ..Work::default() }, params)
}
