//! What calls, layers, merges and caches record, as text: kernels, workgroups, and the bytes that they bind.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod common;

use heedful::cache::{AppendDescriptor, KvCache, KvCacheDescriptor, NewRows};
use heedful::layer::{LayerWeights, MultiHeadAttention};
use heedful::wgpu::{Buffer, BufferDescriptor, BufferUsages};
use heedful::{
    Attention, DType, Engine, MergeStates, Path, Policy, Shape, Table, Tensors, WeightsAt,
};

fn floats(engine: &Engine, n: u64) -> Buffer {
    engine.device().create_buffer(&BufferDescriptor {
        label: None,
        size: 4 * n,
        usage: BufferUsages::STORAGE | BufferUsages::COPY_SRC,
        mapped_at_creation: false,
    })
}

/// The lines without what the adapter decides: the variant of each kernel, and where scratch starts.
fn kernels(text: &str) -> Vec<&str> {
    text.lines().map(|line| line.split(['/', ' ']).next().unwrap()).collect()
}

#[test]
fn a_call_records_its_tables_and_its_steps() {
    let Some(engine) = common::gpu::engine("a_call_records") else { return };
    let call = Attention::new(Shape::self_attention(1, 2, 5, 4)).kv_lengths();
    let policy = Policy { path: Path::Staged, ..Policy::default() };
    let plan = engine.plan_with(&call, &policy).unwrap();
    let [q, k, v, o] = [(); 4].map(|()| floats(&engine, 40));
    let lengths = floats(&engine, 1);
    let kv_lengths = Some(Table::Buffer((&lengths).into()));
    let tensors = Tensors { kv_lengths, ..Tensors::new(&q, &k, &v, &o) };
    let text = engine.bind(&plan, &tensors).unwrap().to_string();
    let (copy, dispatches) = text.split_once('\n').unwrap();
    assert_eq!(copy, "copy of kv_lengths, 4 B");
    assert_eq!(kernels(dispatches), ["staged_score", "staged_normalize", "staged_value"]);
    let score = dispatches.lines().next().unwrap();
    assert!(
        score.contains("/scale/kv over 1x1x2, q 0..160, k 0..160, aux 0..16, scores 0.."),
        "{score}"
    );
}

#[test]
fn a_layer_records_projections_around_its_attention() {
    let Some(engine) = common::gpu::engine("a_layer_records") else { return };
    let shape = Shape::self_attention(2, 3, 5, 4);
    let attention = Attention::new(shape).with_weights(WeightsAt::Probabilities);
    let layer =
        MultiHeadAttention { average_weights: true, ..MultiHeadAttention::new(attention, 8) };
    let plan = engine.plan_layer(&layer, &Policy::default()).unwrap();
    let [x, o, shown] = [2 * 5 * 8, 2 * 5 * 8, 2 * 5 * 5].map(|n| floats(&engine, n));
    let [w_q, w_k, w_v, w_o, b_q] = [96, 96, 96, 96, 12].map(|n| floats(&engine, n));
    let weights = LayerWeights {
        w_o: Some((&w_o).into()),
        b_q: Some((&b_q).into()),
        ..LayerWeights::new(&w_q, &w_k, &w_v)
    };
    let tensors = Tensors { weights: Some((&shown).into()), ..Tensors::new(&x, &x, &x, &o) };
    let text = engine.bind_layer(&plan, &tensors, &weights).unwrap().to_string();
    let lines: Vec<&str> = text.lines().collect();
    let project = "project/f32x4.f32x4.f32x4/-/-";
    assert_eq!(
        [&lines[..3], &lines[6..]].concat(),
        [
            // Rows without gaps between sequences: one sequence to a projection.
            format!(
                "{project}/added over 1x1x1, q 0..320, projection 0..384, o 0..480, bias 0..48"
            ),
            format!("{project} over 1x1x1, q 0..320, projection 0..384, o 0..480"),
            format!("{project} over 1x1x1, q 0..320, projection 0..384, o 0..480"),
            format!("{project} over 1x1x1, q 0..480, projection 0..384, o 0..320"),
            "average/f32.f32/-/- over 1x1x2, q 0..600, o 0..200".to_owned(),
        ]
    );
    let attention = lines[3..6].join("\n");
    assert_eq!(kernels(&attention), ["staged_score", "staged_normalize", "staged_value"]);
}

#[test]
fn a_merge_records_one_dispatch() {
    let Some(engine) = common::gpu::engine("a_merge_records") else { return };
    let merge = MergeStates { parts: 2, rows: 7, dim_v: 4, dtype: DType::F32 };
    let [parts_o, parts_lse, o, lse] = [56, 14, 28, 7].map(|n| floats(&engine, n));
    let parts = [(&parts_o).into(), (&parts_lse).into()];
    let bound = engine.bind_merge(&merge, parts, [(&o).into(), (&lse).into()]).unwrap();
    assert_eq!(
        bound.to_string(),
        "merge_states/f32x4.f32x4/-/-/lse over 7x1x1, q 0..224, parts_lse 0..56, o 0..112, lse 0..28\n"
    );
}

#[test]
fn an_append_records_keys_and_values() {
    let Some(engine) = common::gpu::engine("an_append_records") else { return };
    let descriptor =
        KvCacheDescriptor { pages: Some([6, 4]), ..KvCacheDescriptor::new(2, 3, 8, 12) };
    let cache = KvCache::new(&engine, &descriptor).unwrap();
    let [k, v] = [(); 2].map(|()| floats(&engine, 2 * 3 * 5 * 8));
    let rows = NewRows { k: (&k).into(), v: (&v).into(), rotary: None };
    let append = cache.bind_append(&engine, &AppendDescriptor::new(5), &rows).unwrap();
    let line = "cache_append/f32.f32x4/-/paged/q over 5x6x1, q 0..960, o 0..2304, aux 0..48\n";
    assert_eq!(append.to_string(), line.repeat(2));
}
