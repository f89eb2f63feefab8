//! What each feature asks of a device: planned under falling limits, compared with docs/features.md, and run on a
//! device that has no more.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod common;

use heedful::cache::{AppendDescriptor, KvCache, KvCacheDescriptor, NewRows};
use heedful::kernel::{Element, KernelSpec, Resources};
use heedful::verify::data::{CaseData, DataOptions};
use heedful::verify::execute::{Placement, execute};
use heedful::verify::truth::Truth;
use heedful::{
    Align, Attention, Blocks, Capabilities, DType, Path, Plan, Policy, Rotary, Shape, WeightsAt,
    wgpu,
};

/// Features by name, each with the call that has it.
fn features() -> Vec<(&'static str, Vec<Attention>, Path)> {
    let call = || Attention::new(Shape { heads_kv: 2, ..Shape::self_attention(2, 4, 64, 64) });
    let [mask, bias] = [[2, 1, 1, 64], [1, 4, 64, 64]];
    let tables = vec![
        call().kv_lengths().q_lengths().causal(Align::BottomRight),
        call().sinks().alibi(Align::TopLeft),
        call().segments(),
        call().blocks(Blocks::new(16, 16)),
        call().packed(100, 100),
        call().paged(64, 16, 4).kv_lengths(),
        call().rotary(Rotary::new(16, 64)),
    ];
    let large = vec![
        Attention::new(Shape::self_attention(64, 1, 512, 8)).kv_lengths().paged(256, 4, 128),
        Attention::new(Shape::self_attention(5000, 1, 8, 8)).kv_lengths(),
    ];
    vec![
        ("any call without a line below; appends, merges, layers", vec![call()], Path::Auto),
        (
            "lengths, caches, packed sequences, sinks and others with tables, up to 16 KiB together",
            tables,
            Path::Auto,
        ),
        ("log-sum-exp", vec![call().with_lse()], Path::Auto),
        ("weights or scores", vec![call().with_weights(WeightsAt::AfterBias)], Path::Auto),
        ("boolean mask or bias", vec![call().mask(mask), call().bias(bias)], Path::Auto),
        ("boolean mask and bias", vec![call().mask(mask).bias(bias)], Path::Auto),
        ("mask, bias and lengths", vec![call().mask(mask).bias(bias).kv_lengths()], Path::Auto),
        ("lengths and pages in tables of more than 16 KiB", large, Path::Auto),
        ("the split path", vec![call(), call().kv_lengths()], Path::Split),
        ("the fused path with log-sum-exp", vec![call().with_lse()], Path::Fused),
        (
            "the fused path with mask, bias and log-sum-exp",
            vec![call().mask(mask).bias(bias).with_lse()],
            Path::Fused,
        ),
    ]
}

/// The fewest storage buffers with which all of the calls are planned.
fn fewest(calls: &[Attention], path: Path) -> u32 {
    let serves = |max_storage_buffers: u32| {
        let caps = Capabilities { max_storage_buffers, ..Capabilities::default() };
        let policy = Policy { path, ..Policy::default() };
        calls.iter().all(|call| {
            let call = if path == Path::Split {
                Attention { shape: Shape { seq_q: 4, ..call.shape }, ..call.clone() }
            } else {
                call.clone()
            };
            Plan::new(&call.validate().unwrap(), &caps, &policy).is_ok()
        })
    };
    (1..=8).rev().take_while(|n| serves(*n)).last().unwrap()
}

#[test]
fn the_table_of_limits_names_the_fewest_storage_buffers() {
    let mut table = "| feature | storage buffers per stage |\n|---|--:|\n".to_owned();
    for (name, calls, path) in features() {
        table += &format!("| {name} | {} |\n", fewest(&calls, path));
    }
    let page = include_str!("../docs/features.md");
    let (_, rest) = page.split_once("<!-- limits:begin -->\n\n").unwrap();
    let (found, _) = rest.split_once("\n<!-- limits:end -->").unwrap();
    assert_eq!(found, table, "the table in docs/features.md should be:\n{table}");
}

#[test]
fn what_stands_beside_attention_needs_four_storage_buffers() {
    let element = Element::F32X4;
    let turned = KernelSpec::cache_append(element, element, true, Some(true));
    let beside = [
        turned,
        KernelSpec::cache_advance(),
        KernelSpec::cache_copy(),
        KernelSpec::merge_states(element, element),
        KernelSpec::project([element; 3], true, None),
        KernelSpec::average(),
    ];
    for spec in beside {
        assert!(Resources::of(&spec).storage_buffers <= 4, "{spec}");
    }
}

#[test]
fn four_storage_buffers_serve_lengths_caches_and_tables() {
    let limits = wgpu::Limits::downlevel_defaults();
    let Some(engine) = common::gpu::engine_with("downlevel", limits) else { return };
    assert_eq!(engine.capabilities().max_storage_buffers, 4);
    let shape = Shape { heads_kv: 2, seq_q: 9, ..Shape::self_attention(2, 4, 70, 20) };
    let call = || Attention::new(shape);
    let calls = [
        call().kv_lengths().causal(Align::BottomRight),
        call().kv_lengths().q_lengths().sinks().alibi(Align::BottomRight).dtype(DType::F16),
        call().segments(),
        call().rotary(Rotary::new(20, 70)).kv_lengths(),
        call().blocks(Blocks::new(16, 16)),
        call().mask([2, 1, 9, 70]).kv_lengths().with_lse().dtype(DType::F16),
        call().additive(0.5).kv_lengths(),
    ];
    for attention in calls {
        for (path, placement) in [
            (Path::Auto, Placement::Aligned),
            (Path::Auto, Placement::TogetherOdd),
            (Path::Staged, Placement::Odd),
        ] {
            let policy = Policy { path, ..Policy::default() };
            let plan = match engine.plan_with(&attention, &policy) {
                Err(error) if error.is_unsupported() && path == Path::Staged => continue,
                plan => plan.unwrap(),
            };
            let problem = plan.problem();
            let data = CaseData::generate(problem, 7, &DataOptions::default());
            let run = execute(&engine, &plan, &data.inputs(), placement).unwrap();
            let truth = Truth::measure(problem, &data.inputs()).unwrap();
            for (operand, comparison) in truth.check(problem, &run.outputs) {
                assert!(comparison.pass, "{problem} {operand}: {}\n{plan}", comparison.message());
            }
            assert_eq!(run.stray_write, None, "{plan}");
        }
    }
}

#[test]
fn a_cache_serves_with_four_storage_buffers_or_says_at_once_that_it_cannot() {
    let limits = wgpu::Limits::downlevel_defaults();
    let Some(engine) = common::gpu::engine_with("downlevel_cache", limits) else { return };
    let buffer = || {
        engine.device().create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: 4096,
            usage: wgpu::BufferUsages::STORAGE,
            mapped_at_creation: false,
        })
    };
    let [k, v, q, o] = [1, 2, 3, 4].map(|_| buffer());
    for pages in [None, Some([9, 4])] {
        let descriptor = KvCacheDescriptor { pages, ..KvCacheDescriptor::new(2, 2, 8, 16) };
        let mut cache = KvCache::new(&engine, &descriptor).unwrap();
        let rows = NewRows { k: (&k).into(), v: (&v).into(), rotary: None };
        let append = cache.bind_append(&engine, &AppendDescriptor::new(2), &rows).unwrap();
        let plan = engine.plan(&cache.attention(4, 1).unwrap()).unwrap();
        let mut encoder = engine.device().create_command_encoder(&Default::default());
        cache.append(&mut encoder, &append, &[2, 1]).unwrap();
        engine.encode(&plan, &mut encoder, &cache.tensors(&q, &o)).unwrap();
        engine.queue().submit([encoder.finish()]);
    }
    // 64 sequences of 128 pages: a page table of 32 KiB.
    let descriptor =
        KvCacheDescriptor { pages: Some([256, 4]), ..KvCacheDescriptor::new(64, 1, 8, 512) };
    let error = KvCache::new(&engine, &descriptor).unwrap_err();
    assert!(error.is_unsupported(), "{error}");
    assert!(error.to_string().contains("needs 5 storage buffers, the device has 4"), "{error}");
}
