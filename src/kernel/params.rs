//! The parameter block: the twin of `shaders/common/params.wgsl`.
//!
//! A test compares every offset with the compiler's and has the GPU echo every member back.

use bytemuck::{Pod, Zeroable};

macro_rules! params {
    ($($(#[$doc:meta])* $name:ident: $kind:ident,)*) => {
        /// What changes from dispatch to dispatch; see the WGSL twin for each member's meaning.
        #[repr(C)]
        #[derive(Debug, Clone, Copy, Default, PartialEq, Pod, Zeroable)]
        pub struct Params {
            $($(#[$doc])* pub $name: $kind,)*
        }

        impl Params {
            /// Every member in order: name, WGSL type, byte offset.
            pub const FIELDS: &'static [(&'static str, &'static str, usize)] = &[
                $((stringify!($name), stringify!($kind), std::mem::offset_of!(Params, $name)),)*
            ];
        }
    };
}

params! {
    /// First sequence.
    batch0: u32,
    /// First query head.
    head0: u32,
    /// Query heads.
    head_n: u32,
    /// First query row.
    row0: u32,
    /// Query rows.
    row_n: u32,
    /// First key.
    key0: u32,
    /// Keys.
    key_n: u32,
    /// Query heads of the whole call.
    heads_q: u32,
    /// Query heads per key/value head.
    group: u32,
    /// Query rows of the whole call.
    seq_q: u32,
    /// Keys of the whole call.
    seq_kv: u32,
    /// Head dimension of q and k.
    dim_qk: u32,
    /// Head dimension of v and o.
    dim_v: u32,
    /// Elements between rows of the score scratch; a multiple of 4.
    score_stride: u32,
    /// Base of q, modulo 2³².
    q_base: u32,
    /// Stride of q.
    q_stride_batch: u32,
    /// Stride of q.
    q_stride_head: u32,
    /// Stride of q.
    q_stride_row: u32,
    /// Base of k, modulo 2³².
    k_base: u32,
    /// Stride of k.
    k_stride_batch: u32,
    /// Stride of k.
    k_stride_head: u32,
    /// Stride of k.
    k_stride_row: u32,
    /// Base of v, modulo 2³².
    v_base: u32,
    /// Stride of v.
    v_stride_batch: u32,
    /// Stride of v.
    v_stride_head: u32,
    /// Stride of v.
    v_stride_row: u32,
    /// Base of o, modulo 2³².
    o_base: u32,
    /// Stride of o.
    o_stride_batch: u32,
    /// Stride of o.
    o_stride_head: u32,
    /// Stride of o.
    o_stride_row: u32,
    /// Base of the mask, in bytes, modulo 2³².
    mask_base: u32,
    /// Stride of the mask.
    mask_stride_batch: u32,
    /// Stride of the mask.
    mask_stride_head: u32,
    /// Stride of the mask.
    mask_stride_row: u32,
    /// Stride of the mask.
    mask_stride_key: u32,
    /// Base of the bias, modulo 2³².
    bias_base: u32,
    /// Stride of the bias.
    bias_stride_batch: u32,
    /// Stride of the bias.
    bias_stride_head: u32,
    /// Stride of the bias.
    bias_stride_row: u32,
    /// Stride of the bias.
    bias_stride_key: u32,
    /// Base of lse, modulo 2³².
    lse_base: u32,
    /// Base of weights, modulo 2³².
    weights_base: u32,
    /// First word of the ALiBi slopes in `aux`.
    aux_alibi_slopes: u32,
    /// First word of the sinks in `aux`.
    aux_sinks: u32,
    /// First word of the key lengths in `aux`.
    aux_kv_lengths: u32,
    /// First word of the query lengths in `aux`.
    aux_q_lengths: u32,
    /// First word of the alignment offsets in `aux`.
    aux_offsets: u32,
    /// First word of the caller's table in `aux`.
    aux_table: u32,
    /// First word of the packed sequences' query starts in `aux`.
    aux_cu_seqlens_q: u32,
    /// First word of the packed sequences' key starts in `aux`.
    aux_cu_seqlens_kv: u32,
    /// First word of the query rows' segments in `aux`.
    aux_segments_q: u32,
    /// First word of the keys' segments in `aux`.
    aux_segments_kv: u32,
    /// First word of the block table in `aux`.
    aux_blocks: u32,
    /// Query rows of a block of the table.
    block_rows: u32,
    /// Keys of a block of the table.
    block_keys: u32,
    /// Rows of a block that building the table looks at.
    block_scan: u32,
    /// Stride of the block table, words.
    blocks_stride_batch: u32,
    /// Stride of the block table, words.
    blocks_stride_head: u32,
    /// Stride of the block table, words.
    blocks_stride_row: u32,
    /// First word of the additive score's weights in `aux`.
    aux_score_v: u32,
    /// Words between the additive score's weights of query heads.
    score_v_stride: u32,
    /// Factor inside the activation of the additive score.
    inner_scale: f32,
    /// Slope of a leaky ReLU below 0.
    leaky_slope: f32,
    /// 1 / divisor of relu.
    weight_factor: f32,
    /// Power of relu.
    relu_power: u32,
    /// Bias of sigmoid.
    sigmoid_bias: f32,
    /// Seed of sampling, low word.
    seed_low: u32,
    /// Seed of sampling, high word.
    seed_high: u32,
    /// First word of the rotary cosines in `aux`.
    aux_rotary_cos: u32,
    /// First word of the rotary sines in `aux`.
    aux_rotary_sin: u32,
    /// First word of the cosine score's factors in `aux`.
    aux_head_scale: u32,
    /// First word of the general score's matrix in `aux`.
    aux_score_matrix: u32,
    /// First word of the relative biases in `aux`.
    aux_relative: u32,
    /// First word of the rotary positions in `aux`.
    aux_positions: u32,
    /// Position ids per sequence.
    positions_row: u32,
    /// Channels that are rotated.
    rotary_dim: u32,
    /// Rows of the rotary tables.
    rotary_rows: u32,
    /// First row that is rotated.
    rotary_from: u32,
    /// Its position.
    rotary_start: u32,
    /// Channels of a row before it is prepared.
    dim_source: u32,
    /// Least norm of the cosine score.
    norm_eps: f32,
    /// Relative biases before distance 0.
    relative_left: i32,
    /// Relative biases after distance 0.
    relative_right: i32,
    /// The key at distance 0 from row 0.
    relative_offset: i32,
    /// First word of the centers of local attention in `aux`.
    aux_centers: u32,
    /// Distance between visible keys.
    dilation: i32,
    /// Positions of a chunk.
    chunk: i32,
    /// Reach of local attention.
    local_reach: f32,
    /// 1 / σ of its Gaussian.
    local_inverse_sigma: f32,
    /// Positions on axis 0.
    near_n0: i32,
    /// Window on axis 0.
    near_size0: i32,
    /// Step of windows on axis 0.
    near_stride0: i32,
    /// Dilation on axis 0.
    near_dilation0: i32,
    /// Positions on axis 1.
    near_n1: i32,
    /// Window on axis 1.
    near_size1: i32,
    /// Step of windows on axis 1.
    near_stride1: i32,
    /// Dilation on axis 1.
    near_dilation1: i32,
    /// Positions on axis 2.
    near_n2: i32,
    /// Window on axis 2.
    near_size2: i32,
    /// Step of windows on axis 2.
    near_stride2: i32,
    /// Dilation on axis 2.
    near_dilation2: i32,
    /// Bit a: axis a is causal.
    near_causal: u32,
    /// First word of the edges' starts in `aux`.
    aux_edge_starts: u32,
    /// First word of the edges' keys in `aux`.
    aux_edge_keys: u32,
    /// First word of the edges' biases in `aux`.
    aux_edge_bias: u32,
    /// Edges.
    edge_count: u32,
    /// Shares that keys are split into.
    split_n: u32,
    /// Keys of a share, 0 for even ones.
    split_size: u32,
    /// First word of the page table in `aux`.
    aux_pages: u32,
    /// Entries of the page table per sequence.
    page_row: u32,
    /// Keys of a page.
    page_size: u32,
    /// Pages.
    page_count: u32,
    /// Query rows of packed tensors.
    total_q: u32,
    /// Keys of packed tensors.
    total_kv: u32,
    /// Factor on q·k.
    scale: f32,
    /// Score cap.
    softcap: f32,
    /// Offset of the diagonal when it is given.
    diagonal_offset: i32,
    /// Offset of ALiBi when it is given.
    alibi_offset: i32,
    /// Visible keys before the diagonal.
    window_left: i32,
    /// Visible keys after the diagonal.
    window_right: i32,
    /// 1: add the carry to o's sums.
    carry_in: u32,
    /// 1: hand o's sums on to the carry.
    carry_out: u32,
    /// The bits of −∞.
    minus_infinity: u32,
}
