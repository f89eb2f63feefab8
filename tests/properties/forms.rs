//! The fields of a descriptor that say what attention means beside softmax of a product, each rarely there.

use heedful::feature::mask::{Chunked, Dilated, Local, Masks, Segments};
use heedful::feature::prepare::Cosine;
use heedful::feature::weight::Dropout;
use heedful::problem::{Packed, Paged};
use heedful::{
    Activation, Axis, Blocks, CustomMask, CustomScore, Edges, Inner, KvScales, Neighborhood,
    Normalizer, Relative, Rotary, Scalar, Shape, Storage,
};
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::select;

use super::wild::{align, number, size};

/// Share of the descriptors that have a given form.
const RARE: f64 = 0.08;

/// How q and k make a score and scores make weights.
#[derive(Debug, Clone)]
pub(crate) struct Scores {
    pub(crate) inner: Inner,
    pub(crate) rotary: Option<Rotary>,
    pub(crate) cosine: Option<Cosine>,
    pub(crate) general: Option<u32>,
    pub(crate) relative: Option<Relative>,
    pub(crate) dropout: Option<Dropout>,
    pub(crate) normalizer: Normalizer,
    pub(crate) custom: Vec<CustomScore>,
}

/// Which keys a row sees.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    pub(crate) masks: Masks,
    pub(crate) custom: Vec<CustomMask>,
}

/// Where keys and values lie.
#[derive(Debug, Clone)]
pub(crate) struct Stores {
    pub(crate) kv_storage: Option<Storage>,
    pub(crate) kv_scales: Option<KvScales>,
    pub(crate) packed: Option<Packed>,
    pub(crate) paged: Option<Paged>,
    pub(crate) table: Option<u32>,
    /// Whether lengths and layouts are those that pages or packed sequences want.
    pub(crate) fits: bool,
}

fn inner() -> impl Strategy<Value = Inner> {
    let activation = prop_oneof![
        Just(Activation::Tanh),
        number().prop_map(|slope| Activation::LeakyRelu { slope: Scalar(slope) }),
    ];
    let sum = (activation, number(), any::<bool>()).prop_map(|(activation, scale, per_head)| {
        Inner::Sum { activation, inner_scale: Scalar(scale), per_head }
    });
    prop_oneof![10 => Just(Inner::Product), 1 => sum]
}

fn normalizer() -> impl Strategy<Value = Normalizer> {
    let powers = prop_oneof![8 => 1_u32..3, 1 => any::<u32>()];
    prop_oneof![
        16 => Just(Normalizer::Softmax),
        1 => (powers, number())
            .prop_map(|(power, x)| Normalizer::Relu { power, divisor: Scalar(x) }),
        1 => number().prop_map(|bias| Normalizer::Sigmoid { bias: Scalar(bias) }),
        1 => any::<u64>().prop_map(|seed| Normalizer::Sample { seed }),
        3 => select(vec![
            Normalizer::Hard,
            Normalizer::Sparsemax,
            Normalizer::Entmax15,
            Normalizer::Monotonic,
            Normalizer::Raw,
        ]),
    ]
}

fn rotary(shape: Shape) -> impl Strategy<Value = Rotary> {
    let dim = prop_oneof![8 => Just(shape.dim_qk & !1), 2 => size(1..40)];
    let table_rows = prop_oneof![6 => Just(600), 2 => size(1..900)];
    let starts = [size(0..300), size(0..300), size(0..300)];
    (dim, table_rows, starts, any::<[bool; 5]>()).prop_map(
        |(
            dim,
            table_rows,
            [q_start, keys_from, k_start],
            [interleaved, ids, at_end, key_ids, shared_ids],
        )| Rotary {
            dim,
            interleaved,
            table_rows,
            ids,
            key_ids,
            shared_ids,
            q_start,
            at_end,
            keys_from,
            k_start,
        },
    )
}

pub(crate) fn scores(shape: Shape) -> BoxedStrategy<Scores> {
    let cosine = (number(), any::<bool>())
        .prop_map(|(eps, head_scale)| Cosine { eps: Scalar(eps), head_scale });
    let offset = prop_oneof![8 => -300_i32..300, 1 => any::<i32>()];
    let relative = (size(0..300), size(0..300), offset)
        .prop_map(|(left, right, offset)| Relative { left, right, offset });
    let dropout = (prop_oneof![8 => 0.0_f32..1.0, 1 => number()], any::<u64>())
        .prop_map(|(rate, seed)| Dropout { rate: Scalar(rate), seed });
    let late = CustomScore::new(
        "late",
        "fn score_late(s: f32, p: Position) -> f32 { return s + f32(p.key); }",
        |s, at| s + f64::from(at.key),
    );
    let custom = select(vec![Vec::new(), Vec::new(), Vec::new(), vec![late]]);
    (
        inner(),
        weighted(RARE, rotary(shape)),
        weighted(RARE, cosine),
        weighted(RARE, size(1..513)),
        (weighted(RARE, relative), weighted(RARE, dropout)),
        normalizer(),
        custom,
    )
        .prop_map(|(inner, rotary, cosine, general, (relative, dropout), normalizer, custom)| {
            Scores { inner, rotary, cosine, general, relative, dropout, normalizer, custom }
        })
        .boxed()
}

fn neighborhood(shape: Shape) -> impl Strategy<Value = Neighborhood> {
    let axis = || {
        (size(1..30), size(1..9), size(1..4), size(1..4), any::<bool>()).prop_map(
            |(n, size, stride, dilation, causal)| Axis { n, size, stride, dilation, causal },
        )
    };
    let line = (1_u32..9).prop_map(move |size| Neighborhood::line(shape.seq_q, size));
    prop_oneof![4 => line, 1 => [axis(), axis(), axis()].prop_map(Neighborhood)]
}

pub(crate) fn places(shape: Shape) -> BoxedStrategy<Places> {
    let step = || weighted(RARE, (size(1..99), align()));
    let edges = (size(0..3000), any::<bool>()).prop_map(|(count, bias)| Edges { count, bias });
    let local = (number(), any::<bool>())
        .prop_map(|(reach, gaussian)| Local { reach: Scalar(reach), gaussian });
    let of = |whole: u32| prop_oneof![4 => Just(1), 4 => Just(whole), 1 => any::<u32>()];
    let blocks = (size(1..99), size(1..99), of(shape.batch), of(shape.heads_q))
        .prop_map(|(rows, keys, batch, heads)| Blocks { rows, keys, batch, heads });
    let even = CustomMask::new(
        "even",
        "fn mask_even(p: Position) -> bool { return p.key % 2u == 0u; }",
        |at| at.key % 2 == 0,
    );
    let custom = select(vec![Vec::new(), Vec::new(), Vec::new(), vec![even]]);
    (
        // Of every kind, those that are not drawn below too.
        (step(), step(), weighted(3.0 * RARE, select(Masks::examples(&shape)))),
        weighted(RARE, neighborhood(shape)),
        weighted(RARE, edges),
        weighted(RARE, local),
        proptest::bool::weighted(RARE),
        weighted(RARE, blocks),
        custom,
    )
        .prop_map(
            |((dilated, chunked, any), neighborhood, edges, local, segments, blocks, custom)| {
                let masks = Masks {
                    dilated: dilated.map(|(step, align)| Dilated { step, align }),
                    chunked: chunked.map(|(size, align)| Chunked { size, align }),
                    neighborhood,
                    edges,
                    local,
                    segments: segments.then_some(Segments {}),
                    blocks,
                    ..any.unwrap_or_default()
                };
                Places { masks, custom }
            },
        )
        .boxed()
}

pub(crate) fn stores(shape: Shape) -> BoxedStrategy<Stores> {
    let packed =
        (size(0..900), size(0..900)).prop_map(|(total_q, total_kv)| Packed { total_q, total_kv });
    let row = prop_oneof![6 => Just(shape.seq_kv), 1 => size(1..300)];
    let paged = (size(1..300), size(1..65), row).prop_map(|(pages, page_size, row)| Paged {
        pages,
        page_size,
        row,
    });
    (
        weighted(2.0 * RARE, select(Storage::ALL.to_vec())),
        weighted(RARE, select(vec![KvScales::Tensor, KvScales::Head])),
        weighted(RARE, packed),
        weighted(2.0 * RARE, paged),
        weighted(RARE, size(1..99)),
        proptest::bool::weighted(0.9),
    )
        .prop_map(|(kv_storage, kv_scales, packed, paged, table, fits)| Stores {
            kv_storage,
            kv_scales,
            packed,
            paged,
            table,
            fits,
        })
        .boxed()
}
