//! Descriptors and devices of which any field may hold anything.

use heedful::feature::score::Alibi;
use heedful::{
    Align, Attention, Broadcast, Capabilities, DType, Layout, Scalar, Shape, Strides, Window,
};
use proptest::prelude::*;
use proptest::sample::select;

use super::small::weights_at;

/// Sizes: plausible ones most of the time, so that what is wild elsewhere is reached.
fn size(plausible: std::ops::Range<u32>) -> impl Strategy<Value = u32> {
    prop_oneof![
        60 => plausible,
        1 => Just(0),
        1 => (0_u32..32).prop_map(|bit| 1 << bit),
        1 => Just(u32::MAX),
        1 => any::<u32>(),
    ]
}

fn shape() -> impl Strategy<Value = Shape> {
    let heads = (size(1..9), size(1..5), proptest::bool::weighted(0.9));
    let seq = || prop_oneof![30 => size(0..300), 1 => Just(1 << 28), 1 => Just((1 << 28) + 1)];
    let dim = || prop_oneof![30 => size(1..513), 1 => Just(513)];
    (size(0..5), heads, seq(), seq(), dim(), dim()).prop_map(
        |(batch, (heads_kv, group, grouped), seq_q, seq_kv, dim_qk, dim_v)| {
            let heads_q = if grouped { heads_kv.saturating_mul(group) } else { group };
            Shape { batch, heads_q, heads_kv, seq_q, seq_kv, dim_qk, dim_v }
        },
    )
}

fn scalar() -> impl Strategy<Value = Option<Scalar>> {
    let value = prop_oneof![
        12 => (0.1_f32..40.0).boxed(),
        1 => any::<u32>().prop_map(f32::from_bits).boxed(),
        1 => select(vec![0.0, -0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 1e-45])
            .boxed(),
    ];
    proptest::option::weighted(0.4, value.prop_map(Scalar))
}

fn align() -> impl Strategy<Value = Align> {
    prop_oneof![
        6 => Just(Align::TopLeft),
        6 => Just(Align::BottomRight),
        4 => Just(Align::PerBatch),
        4 => (-300_i32..300).prop_map(Align::Offset),
        1 => any::<i32>().prop_map(Align::Offset),
        1 => select(vec![i32::MIN, i32::MAX, 1 << 28, (1 << 28) + 1]).prop_map(Align::Offset),
    ]
}

/// Broadcasts of the shape itself, and some that do not fit.
fn broadcast(shape: Shape) -> impl Strategy<Value = Option<Broadcast>> {
    let full = [shape.batch, shape.heads_q, shape.seq_q, shape.seq_kv];
    let fits = any::<[bool; 4]>().prop_map(move |whole| {
        Broadcast(std::array::from_fn(|axis| if whole[axis] { full[axis] } else { 1 }))
    });
    proptest::option::weighted(
        0.3,
        prop_oneof![
            16 => fits.boxed(),
            1 => any::<[u32; 4]>().prop_map(Broadcast).boxed(),
            1 => any::<[u8; 4]>().prop_map(|n| Broadcast(n.map(u32::from))).boxed(),
        ],
    )
}

fn layout() -> impl Strategy<Value = Layout> {
    let stride = || {
        prop_oneof![
            2 => Just(0_u64).boxed(),
            2 => (1_u64..100_000).boxed(),
            1 => (0_u32..64).prop_map(|bit| 1 << bit).boxed(),
            1 => any::<u64>().boxed(),
            1 => Just(u64::MAX).boxed(),
        ]
    };
    let strided = (stride(), stride(), stride())
        .prop_map(|(batch, head, row)| Layout::Strided(Strides { batch, head, row }));
    prop_oneof![8 => Just(Layout::Bhsd), 4 => Just(Layout::Bshd), 1 => strided]
}

pub(crate) fn attention() -> impl Strategy<Value = Attention> {
    shape().prop_flat_map(|shape| {
        let side = || proptest::option::of(prop_oneof![0_u32..300, any::<u32>(), Just(u32::MAX)]);
        let window = (side(), side(), align(), proptest::bool::weighted(0.8));
        let masks = (
            proptest::option::of(align()),
            proptest::option::of(window),
            proptest::option::of(align()),
        );
        let data = (broadcast(shape), broadcast(shape), any::<[bool; 4]>());
        let layouts = [layout(), layout(), layout(), layout()];
        let scalars = (scalar(), scalar());
        (select(DType::ALL.to_vec()), scalars, masks, data, layouts, weights_at()).prop_map(
            move |(dtype, (scale, softcap), (causal, window, alibi), data, layouts, weights)| {
                let (mask, bias, [sinks, kv_lengths, q_lengths, lse]) = data;
                let [layout_q, layout_k, layout_v, layout_o] = layouts;
                Attention {
                    dtype,
                    scale,
                    causal,
                    // Most windows have causal's alignment; any other is refused.
                    window: window.map(|(left, right, align, same)| {
                        let align = causal.filter(|_| same).unwrap_or(align);
                        (Window { left, right }, align)
                    }),
                    softcap,
                    mask,
                    bias,
                    alibi: alibi.map(|align| Alibi { align }),
                    sinks,
                    kv_lengths,
                    q_lengths,
                    layout_q,
                    layout_k,
                    layout_v,
                    layout_o,
                    lse,
                    weights,
                    ..Attention::new(shape)
                }
            },
        )
    })
}

/// Devices from absurdly small to absurdly large.
pub(crate) fn capabilities() -> impl Strategy<Value = Capabilities> {
    let bytes = || {
        prop_oneof![
            2 => Just(128_u64 << 20).boxed(),
            2 => (0_u32..40).prop_map(|bit| 1 << bit).boxed(),
            1 => (0_u64..5000).boxed(),
            1 => Just(u64::MAX).boxed(),
        ]
    };
    let alignment = || (2_u32..17).prop_map(|bit| 1_u64 << bit);
    let count = |usual: u32| prop_oneof![10 => Just(usual), 1 => 0..usual, 1 => Just(u32::MAX)];
    let counts = (count(8), count(16 << 10), count(256), count(65_535));
    let class = select(vec!["cpu", "discretegpu", "other"]);
    let subgroups = prop_oneof![Just([0, 0]), Just([4, 128]), Just([32, 32]), any::<[u32; 2]>()];
    let flags = (any::<bool>(), any::<bool>(), subgroups, class);
    (bytes(), bytes(), alignment(), alignment(), counts, flags).prop_map(
        |(binding, buffer, storage, uniform, counts, flags)| Capabilities {
            max_binding_bytes: binding,
            max_buffer_bytes: buffer,
            storage_alignment: storage,
            uniform_alignment: uniform,
            max_storage_buffers: counts.0,
            max_workgroup_bytes: counts.1,
            max_invocations: counts.2,
            max_workgroups: counts.3,
            shader_f16: flags.0,
            subgroups: flags.1,
            subgroup_size: flags.2,
            device_type: flags.3.into(),
            ..Capabilities::default()
        },
    )
}
