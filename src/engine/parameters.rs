//! The parameter block of a plan: what every dispatch of it shares.

use crate::feature::align::{Align, MAX_OFFSET};
use crate::feature::inner::{Activation, Inner};
use crate::feature::mask::{Axis, Blocks, Neighborhood};
use crate::feature::normalize::Normalizer;
use crate::kernel::Params;
use crate::plan::{BlockSize, Plan, Schedule};
use crate::problem::Operand;

/// The parameters that every dispatch of a plan shares.
pub(super) fn base_params(plan: &Plan, tables: &Params) -> Params {
    let problem = plan.problem();
    let a = problem.attention();
    let s = a.shape;
    let stride = |operand| {
        let strides = problem.read_strides(operand);
        [strides.batch as u32, strides.head as u32, strides.row as u32]
    };
    let [q_stride_batch, q_stride_head, q_stride_row] = stride(Operand::Q);
    let [k_stride_batch, k_stride_head, k_stride_row] = stride(Operand::K);
    let [v_stride_batch, v_stride_head, v_stride_row] = stride(Operand::V);
    let [o_stride_batch, o_stride_head, o_stride_row] = stride(Operand::O);
    let broadcast = |shape: Option<crate::tensor::Broadcast>| {
        shape.map_or([0; 4], |shape| shape.strides().map(|stride| stride as u32))
    };
    let mask = broadcast(a.mask);
    let bias = broadcast(a.bias);
    let given = |align: Align| if let Align::Offset(n) = align { n } else { 0 };
    let (blocks, block_scan) = plan.blocks().unwrap_or((Blocks::new(1, 1), 1));
    let block_strides = blocks.strides(&s).map(|stride| stride as u32);
    let (inner_scale, leaky_slope) = match a.inner {
        Inner::Product => (1.0, 0.0),
        Inner::Sum { activation: Activation::Tanh, inner_scale, .. } => (inner_scale.get(), 0.0),
        Inner::Sum { activation: Activation::LeakyRelu { slope }, inner_scale, .. } => {
            (inner_scale.get(), slope.get())
        }
    };
    let seed = if let Normalizer::Sample { seed } = a.normalizer { seed } else { 0 };
    let window = a.window.map(|(window, _)| window);
    let side = |n: Option<u32>| {
        n.map_or(2 * MAX_OFFSET, |n| i32::try_from(n).unwrap_or(i32::MAX).min(2 * MAX_OFFSET))
    };
    let mut places = *tables;
    if let Some(Neighborhood([a0, a1, a2])) = a.neighborhood {
        let ints = |a: Axis| [a.n, a.size, a.stride, a.dilation].map(|n| n as i32);
        [places.near_n0, places.near_size0, places.near_stride0, places.near_dilation0] = ints(a0);
        [places.near_n1, places.near_size1, places.near_stride1, places.near_dilation1] = ints(a1);
        [places.near_n2, places.near_size2, places.near_stride2, places.near_dilation2] = ints(a2);
        let causal = [a0, a1, a2].map(|a| u32::from(a.causal));
        places.near_causal = causal[0] | causal[1] << 1 | causal[2] << 2;
    }
    let (split_n, split_size) = match plan.schedule() {
        Schedule::Split(split) => (split.shares, split.share_keys),
        _ => (1, 0),
    };
    Params {
        split_n,
        split_size,
        heads_q: s.heads_q,
        group: s.group(),
        seq_q: s.seq_q,
        seq_kv: s.seq_kv,
        dim_qk: s.dim_qk,
        dim_v: s.dim_v,
        score_stride: BlockSize::score_stride(problem) as u32,
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
        mask_stride_batch: mask[0],
        mask_stride_head: mask[1],
        mask_stride_row: mask[2],
        mask_stride_key: mask[3],
        bias_stride_batch: bias[0],
        bias_stride_head: bias[1],
        bias_stride_row: bias[2],
        bias_stride_key: bias[3],
        inner_scale,
        leaky_slope,
        score_v_stride: if matches!(a.inner, Inner::Sum { per_head: true, .. }) {
            s.dim_qk
        } else {
            0
        },
        weight_factor: if let Normalizer::Relu { divisor, .. } = a.normalizer {
            1.0 / divisor.get()
        } else {
            1.0
        },
        relu_power: if let Normalizer::Relu { power, .. } = a.normalizer { power } else { 1 },
        sigmoid_bias: if let Normalizer::Sigmoid { bias } = a.normalizer {
            bias.get()
        } else {
            0.0
        },
        seed_low: seed as u32,
        seed_high: (seed >> 32) as u32,
        dilation: a.dilated.map_or(1, |(step, _)| step as i32),
        chunk: a.chunked.map_or(1, |(size, _)| size as i32),
        local_reach: a.local.map_or(0.0, |local| local.reach.get()),
        local_inverse_sigma: a.local.map_or(0.0, |local| 2.0 / local.reach.get()),
        edge_count: a.edges.map_or(0, |edges| edges.count),
        positions_row: s.seq_q,
        page_row: a.paged.map_or(1, |paged| paged.row),
        page_size: a.paged.map_or(1, |paged| paged.page_size),
        page_count: a.paged.map_or(0, |paged| paged.pages),
        rotary_dim: a.rotary.map_or(0, |rotary| rotary.dim),
        rotary_rows: a.rotary.map_or(1, |rotary| rotary.table_rows),
        norm_eps: a.cosine.map_or(0.0, |cosine| cosine.eps.get()),
        relative_left: a.relative.map_or(0, |relative| relative.left as i32),
        relative_right: a.relative.map_or(0, |relative| relative.right as i32),
        relative_offset: a.relative.map_or(0, |relative| relative.offset),
        block_rows: blocks.rows,
        block_keys: blocks.keys,
        block_scan,
        blocks_stride_batch: block_strides[0],
        blocks_stride_head: block_strides[1],
        blocks_stride_row: block_strides[2],
        total_q: a.packed.map_or(0, |packed| packed.total_q),
        total_kv: a.packed.map_or(0, |packed| packed.total_kv),
        scale: problem.scale(),
        softcap: a.softcap.map_or(1.0, |cap| cap.get()),
        diagonal_offset: given(problem.align()),
        alibi_offset: a.alibi.map_or(0, |alibi| given(alibi.align)),
        window_left: side(window.and_then(|window| window.left)),
        window_right: side(window.and_then(|window| window.right)),
        minus_infinity: f32::NEG_INFINITY.to_bits(),
        ..places
    }
}
