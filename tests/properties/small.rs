//! Small descriptors that are valid, with every feature, layout and storage type.

use heedful::feature::mask::{Causal, Dense, Masks, Segments, Window};
use heedful::feature::score::Alibi;
use heedful::verify::data::{DataOptions, Lengths};
use heedful::verify::execute::Placement;
use heedful::{
    Align, Attention, Blocks, Broadcast, DType, Layout, Scalar, Shape, Strides, WeightsAt,
};
use proptest::prelude::*;
use proptest::sample::select;

/// A small descriptor that should be valid, and the data to run it on.
#[derive(Debug, Clone)]
pub(crate) struct Small {
    pub(crate) attention: Attention,
    pub(crate) options: DataOptions,
    pub(crate) placement: Placement,
    pub(crate) seed: u64,
}

fn shape() -> impl Strategy<Value = Shape> {
    let seq = || prop_oneof![6 => 1_u32..71, 1 => Just(0), 1 => select(vec![1, 16, 32, 64])];
    let dim = || prop_oneof![2 => 1_u32..41, 1 => select(vec![4, 8, 16, 32, 40])];
    (0_u32..3, 1_u32..4, 1_u32..4, seq(), seq(), dim(), dim(), any::<bool>()).prop_map(
        |(batch, heads_kv, group, seq_q, seq_kv, dim_qk, dim_v, one_dim)| Shape {
            batch,
            heads_q: heads_kv * group,
            heads_kv,
            seq_q,
            seq_kv,
            dim_qk,
            dim_v: if one_dim { dim_qk } else { dim_v },
        },
    )
}

/// The plain layouts, rows with gaps, packed heads, and (for inputs) one sequence for the whole batch and
/// rows that overlap.
fn layout(heads: u32, seq: u32, dim: u32, input: bool) -> impl Strategy<Value = Layout> {
    let (heads, seq, dim) = (u64::from(heads), u64::from(seq), u64::from(dim));
    let gapped = (0_u64..9).prop_map(move |gap| {
        let row = dim + gap;
        let head = seq * row + gap;
        Layout::Strided(Strides { batch: heads * head + gap, head, row })
    });
    let packed = Strides { batch: 3 * seq * heads * dim, head: dim, row: 3 * heads * dim };
    let shared = Strides { batch: 0, head: seq * dim, row: dim };
    let last = if input { Layout::Strided(shared) } else { Layout::Bhsd };
    let frames = (0..dim.max(1)).prop_map(move |row| {
        let strides = Strides { batch: heads * (seq * row + dim), head: seq * row + dim, row };
        if input { Layout::Strided(strides) } else { Layout::Bshd }
    });
    prop_oneof![
        4 => Just(Layout::Bhsd).boxed(),
        2 => Just(Layout::Bshd).boxed(),
        2 => gapped.boxed(),
        1 => Just(Layout::Strided(packed)).boxed(),
        1 => Just(last).boxed(),
        1 => frames.boxed(),
    ]
}

fn align() -> impl Strategy<Value = Align> {
    prop_oneof![
        Just(Align::TopLeft),
        Just(Align::BottomRight),
        (-80_i32..80).prop_map(Align::Offset),
        Just(Align::PerBatch),
    ]
}

fn options() -> impl Strategy<Value = DataOptions> {
    let lengths = select(vec![Lengths::Mixed, Lengths::Zero, Lengths::Partial, Lengths::Full]);
    let logits = select(vec![0.1, 1.0, 8.0]);
    let sinks = select(vec![0.5, 4.0, 30.0]);
    (logits, 0.1_f64..4.0, sinks, lengths, any::<bool>(), any::<bool>()).prop_map(
        |(logits, values, sinks, lengths, poison, bias_blocks)| DataOptions {
            logits,
            values,
            sinks,
            lengths,
            poison,
            bias_blocks,
            ..DataOptions::default()
        },
    )
}

pub(crate) fn small() -> impl Strategy<Value = Small> {
    shape().prop_flat_map(|s| {
        let full = [s.batch, s.heads_q, s.seq_q, s.seq_kv];
        let broadcast = move || {
            let whole = proptest::option::weighted(0.3, any::<[bool; 4]>());
            whole.prop_map(move |whole| {
                let axis = |whole: [bool; 4], i: usize| if whole[i] { full[i] } else { 1 };
                whole.map(|whole| Broadcast(std::array::from_fn(|i| axis(whole, i))))
            })
        };
        let side = || proptest::option::of(0_u32..40);
        let diagonal = (
            align(),
            any::<bool>(),
            proptest::option::weighted(0.3, (side(), side())),
            proptest::option::weighted(0.3, align()),
        );
        let layouts = (
            layout(s.heads_q, s.seq_q, s.dim_qk, true),
            layout(s.heads_kv, s.seq_kv, s.dim_qk, true),
            layout(s.heads_kv, s.seq_kv, s.dim_v, true),
            layout(s.heads_q, s.seq_q, s.dim_v, false),
        );
        let scalars = (
            proptest::option::weighted(0.3, -2.0_f32..2.0),
            proptest::option::weighted(0.3, 0.5_f32..40.0),
        );
        let data = (broadcast(), broadcast(), any::<[bool; 4]>());
        let placement = select(vec![Placement::Aligned, Placement::Odd]);
        let blocks =
            (1_u32..70, 1_u32..70, any::<bool>(), any::<bool>()).prop_map(move |x| Blocks {
                batch: if x.2 { s.batch } else { 1 },
                heads: if x.3 { s.heads_q } else { 1 },
                ..Blocks::new(x.0, x.1)
            });
        let sparse = (proptest::option::weighted(0.2, blocks), proptest::bool::weighted(0.2));
        let extra = (sparse, weights_at(), options(), placement, any::<u64>());
        (select(DType::ALL.to_vec()), scalars, diagonal, layouts, data, extra).prop_map(
            move |(
                dtype,
                (scale, softcap),
                (align, causal, window, alibi),
                layouts,
                data,
                extra,
            )| {
                let (mask, bias, [sinks, kv_lengths, q_lengths, lse]) = data;
                let ((blocks, segments), weights, mut options, placement, seed) = extra;
                let attention = Attention {
                    dtype,
                    scale: scale.map(Scalar),
                    masks: Masks {
                        causal: causal.then_some(Causal { align }),
                        window: window.map(|(left, right)| Window { left, right, align }),
                        dense: mask.map(Dense),
                        segments: segments.then_some(Segments {}),
                        blocks,
                        ..Masks::default()
                    },
                    softcap: softcap.map(Scalar),
                    bias,
                    alibi: alibi.map(|align| Alibi { align }),
                    sinks,
                    kv_lengths,
                    q_lengths,
                    layout_q: layouts.0,
                    layout_k: layouts.1,
                    layout_v: layouts.2,
                    layout_o: layouts.3,
                    lse,
                    weights,
                    ..Attention::new(s)
                };
                // A row that several sequences share may be hidden in one and seen in another.
                let shared = [layouts.0, layouts.1, layouts.2];
                let shared = shared.iter().any(|x| matches!(x, Layout::Strided(s) if s.batch == 0));
                options.poison &= !shared;
                Small { attention, options, placement, seed }
            },
        )
    })
}

/// Where scores are taken from, if they are.
pub(crate) fn weights_at() -> impl Strategy<Value = Option<WeightsAt>> {
    let points = [
        WeightsAt::RawScores,
        WeightsAt::AfterSoftcap,
        WeightsAt::AfterBias,
        WeightsAt::Probabilities,
    ];
    proptest::option::weighted(0.3, select(points.to_vec()))
}
