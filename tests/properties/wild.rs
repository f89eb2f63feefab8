//! Descriptors and devices of which any field may hold anything.

use heedful::feature::mask::{Causal, Chunked, Dense, Dilated, Masks, Window};
use heedful::feature::score::Alibi;
use heedful::problem::Packed;
use heedful::{
    Align, Attention, Broadcast, Capabilities, DType, Layout, Normalizer, Scalar, Shape, Strides,
};
use proptest::prelude::*;
use proptest::sample::select;

use super::{forms, small::weights_at};

/// Sizes: plausible ones most of the time, so that what is wild elsewhere is reached.
pub(crate) fn size(plausible: std::ops::Range<u32>) -> impl Strategy<Value = u32> {
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
    let square = proptest::bool::weighted(0.3);
    (size(0..5), heads, (seq(), seq(), square), dim(), dim()).prop_map(
        |(batch, (heads_kv, group, grouped), (seq_q, seq_kv, square), dim_qk, dim_v)| {
            let heads_q = if grouped { heads_kv.saturating_mul(group) } else { group };
            let seq_kv = if square { seq_q } else { seq_kv };
            Shape { batch, heads_q, heads_kv, seq_q, seq_kv, dim_qk, dim_v }
        },
    )
}

/// Usually a positive number of moderate size.
pub(crate) fn number() -> impl Strategy<Value = f32> {
    prop_oneof![
        12 => (0.1_f32..40.0).boxed(),
        1 => any::<u32>().prop_map(f32::from_bits).boxed(),
        1 => select(vec![0.0, -0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 1e-45])
            .boxed(),
    ]
}

fn scalar() -> impl Strategy<Value = Option<Scalar>> {
    proptest::option::weighted(0.4, number().prop_map(Scalar))
}

pub(crate) fn align() -> impl Strategy<Value = Align> {
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

/// Layouts that packed sequences and pages want, in place of others.
fn fit(a: &mut Attention) {
    if a.packed.is_some() {
        (a.kv_lengths, a.q_lengths, a.weights) = (false, false, None);
        [a.layout_q, a.layout_k, a.layout_v, a.layout_o] = [Layout::Bshd; 4];
    }
    // Scales are of keys that have few bits.
    a.kv_scales = a.kv_scales.filter(|_| a.kv_storage.is_some_and(|x| x.dtype().is_none()));
    if a.paged.is_some() {
        a.kv_lengths = true;
        [a.layout_k, a.layout_v] = [Layout::Bshd; 2];
        a.packed = a.packed.map(|packed| Packed { total_kv: 0, ..packed });
    }
}

pub(crate) fn attention() -> impl Strategy<Value = Attention> {
    shape().prop_flat_map(|shape| {
        let side = || proptest::option::of(prop_oneof![0_u32..300, any::<u32>(), Just(u32::MAX)]);
        let window = (side(), side(), align(), proptest::bool::weighted(0.8));
        let masks = (
            proptest::option::weighted(0.3, align()),
            proptest::option::weighted(0.3, window),
            proptest::option::weighted(0.3, align()),
        );
        // Boxed, because all of it together is more than a test's stack holds.
        let masks = masks.boxed();
        let data = (broadcast(shape), broadcast(shape), any::<[bool; 4]>()).boxed();
        let layouts = [layout(), layout(), layout(), layout()].boxed();
        let scalars = (scalar(), scalar()).boxed();
        let forms = (forms::scores(shape), forms::places(shape), forms::stores(shape));
        let dtype = select(DType::ALL.to_vec());
        (dtype, scalars, masks, data, layouts, weights_at(), forms).prop_map(
            move |(dtype, (scale, softcap), masks, data, layouts, weights, forms)| {
                let (causal, window, alibi) = masks;
                let (mask, bias, [sinks, kv_lengths, q_lengths, lse]) = data;
                let [layout_q, layout_k, layout_v, layout_o] = layouts;
                let (scores, places, stores) = forms;
                // Most windows have causal's alignment, and so on; any other is refused.
                let aligned = |align: Align, same: bool| causal.filter(|_| same).unwrap_or(align);
                let masks = Masks {
                    causal: causal.map(|align| Causal { align }).or(places.masks.causal),
                    window: window
                        .map(|(left, right, align, same)| {
                            let align = aligned(align, same);
                            Window { left, right, align }
                        })
                        .or(places.masks.window),
                    dilated: places
                        .masks
                        .dilated
                        .map(|x| Dilated { align: aligned(x.align, true), ..x }),
                    chunked: places
                        .masks
                        .chunked
                        .map(|x| Chunked { align: aligned(x.align, true), ..x }),
                    dense: mask.map(Dense).or(places.masks.dense),
                    ..places.masks
                };
                let softmax = scores.normalizer == Normalizer::Softmax;
                // A field that is new is asked for here: without the rest of `new`, on purpose.
                let mut a = Attention {
                    shape,
                    dtype,
                    kv_storage: stores.kv_storage,
                    kv_scales: stores.kv_scales,
                    scale,
                    masks,
                    inner: scores.inner,
                    rotary: scores.rotary,
                    cosine: scores.cosine,
                    general: scores.general,
                    relative: scores.relative,
                    dropout: scores.dropout,
                    normalizer: scores.normalizer,
                    softcap,
                    bias,
                    bias_dtype: if bias.is_some() { dtype } else { DType::F32 },
                    alibi: alibi.map(|align| Alibi { align }),
                    sinks: sinks && (softmax || !stores.fits),
                    kv_lengths,
                    q_lengths,
                    packed: stores.packed,
                    paged: stores.paged,
                    custom_scores: scores.custom,
                    custom_masks: places.custom,
                    table: stores.table,
                    layout_q,
                    layout_k,
                    layout_v,
                    layout_o,
                    lse: lse && (softmax || !stores.fits),
                    weights,
                };
                if stores.fits {
                    fit(&mut a);
                }
                a
            },
        )
    })
}

/// Each field, and whether it asks for something.
pub(crate) fn asked(a: &Attention) -> Vec<(&'static str, bool)> {
    // Every field, so that a new one is asked for here too.
    let Attention {
        shape: _,
        dtype,
        kv_storage,
        kv_scales,
        scale,
        masks,
        inner,
        rotary,
        cosine,
        general,
        relative,
        dropout,
        normalizer,
        softcap,
        bias,
        bias_dtype,
        alibi,
        sinks,
        kv_lengths,
        q_lengths,
        packed,
        paged,
        custom_scores,
        custom_masks,
        table,
        layout_q,
        layout_k,
        layout_v,
        layout_o,
        lse,
        weights,
    } = a;
    let there: Vec<_> = masks.iter().map(|mask| mask.slot().name).collect();
    let fields = [
        ("dtype", *dtype != DType::F32),
        ("kv_storage", kv_storage.is_some()),
        ("kv_scales", kv_scales.is_some()),
        ("scale", scale.is_some()),
        ("inner", inner.is_sum()),
        ("rotary", rotary.is_some()),
        ("cosine", cosine.is_some()),
        ("general", general.is_some()),
        ("relative", relative.is_some()),
        ("dropout", dropout.is_some()),
        ("normalizer", *normalizer != Normalizer::Softmax),
        ("softcap", softcap.is_some()),
        ("bias", bias.is_some()),
        ("bias_dtype", *bias_dtype != DType::F32),
        ("alibi", alibi.is_some()),
        ("sinks", *sinks),
        ("kv_lengths", *kv_lengths),
        ("q_lengths", *q_lengths),
        ("packed", packed.is_some()),
        ("paged", paged.is_some()),
        ("custom_scores", !custom_scores.is_empty()),
        ("custom_masks", !custom_masks.is_empty()),
        ("table", table.is_some()),
        ("layout_q", *layout_q != Layout::Bhsd),
        ("layout_k", *layout_k != Layout::Bhsd),
        ("layout_v", *layout_v != Layout::Bhsd),
        ("layout_o", *layout_o != Layout::Bhsd),
        ("lse", *lse),
        ("weights", weights.is_some()),
    ];
    let masks = Masks::NAMES.iter().map(|name| (*name, there.iter().any(|x| x == name)));
    masks.chain(fields).collect()
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
