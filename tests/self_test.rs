//! The self-test refuses planted faults, names them, and lets the next candidate serve.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod common;

use common::gpu::engine;
use heedful::cache::{AppendDescriptor, KvCache, KvCacheDescriptor, NewRows};
use heedful::kernel::Kernel;
use heedful::verify::cases::{Grid, grid};
use heedful::{
    Align, Attention, CustomMask, CustomScore, DType, MergeStates, Path, Policy, SelfTest, Shape,
    wgpu,
};

fn call() -> Attention {
    Attention::new(Shape::self_attention(1, 2, 64, 32)).causal(Align::TopLeft)
}

/// Forgets the rescaling of what was summed before: right for the first keys only.
fn no_rescaling(text: &str) -> String {
    let planted = text.replace("let old = normalize_rescale(m, peak);", "let old = exp2(m - m);");
    assert_ne!(planted, text, "the fault is planted");
    planted
}

/// Transposes nothing it should.
fn shifted_key(text: &str) -> String {
    let planted = text.replace("let k_row = key0 + r * 4u;", "let k_row = key0 + r * 4u + 1u;");
    assert_ne!(planted, text, "the fault is planted");
    planted
}

/// Does not compile.
fn broken(text: &str) -> String {
    format!("{text}\nfn broken() -> u32 {{ return nothing; }}\n")
}

#[test]
fn a_wrong_variant_is_refused_by_name_and_the_next_serves() {
    let Some(engine) = engine("a_wrong_variant") else { return };
    let first = engine.plan_with(&call(), &off()).unwrap().kernels()[0].kernel;
    engine.plant(first, no_rescaling);
    let plan = engine.plan(&call()).unwrap();
    assert_ne!(plan.kernels()[0].kernel, first, "{plan}");
    let refused = plan.rejections().iter().find(|r| r.candidate.starts_with(first.name())).unwrap();
    assert!(refused.reason.contains("wrong in the self-test"), "{plan}");
    assert!(plan.to_string().contains("wrong in the self-test"), "{plan}");
    // The verdict is remembered: planning again tries nothing anew.
    let compiled = engine.compiled_kernels();
    engine.plan(&call()).unwrap();
    assert_eq!(engine.compiled_kernels(), compiled);
}

#[test]
fn when_every_candidate_is_wrong_each_is_named() {
    let Some(engine) = engine("every_candidate_wrong") else { return };
    engine.plant(Kernel::FusedForward, no_rescaling);
    engine.plant(Kernel::FusedForwardSubgroup, no_rescaling);
    engine.plant(Kernel::FusedForwardTile, broken);
    let plan = engine.plan(&call()).unwrap();
    assert_eq!(plan.path(), Path::Staged, "{plan}");

    let engine = common::gpu::engine("every_candidate_wrong").unwrap();
    engine.plant(Kernel::FusedForward, broken);
    engine.plant(Kernel::FusedForwardSubgroup, broken);
    engine.plant(Kernel::FusedForwardTile, broken);
    engine.plant(Kernel::SplitForwardTile, broken);
    engine.plant(Kernel::StagedScore, shifted_key);
    let error = engine.plan(&call()).unwrap_err();
    assert!(error.is_unsupported(), "{error}");
    for kernel in [
        "split_forward_tile",
        "fused_forward_tile",
        "fused_forward_subgroup",
        "fused_forward/",
        "staged_score",
    ] {
        let named = error.rejections().iter().any(|x| x.candidate.starts_with(kernel));
        assert!(named, "{kernel}: {error}");
    }
}

/// Joins with the sum of the other row: what a wrong index does.
fn other_row(text: &str) -> String {
    let planted = text
        .replace("(p * params.row_n + row) * params.dim_v", "(p * params.row_n) * params.dim_v");
    assert_ne!(planted, text, "the fault is planted");
    planted
}

/// Leaves out the counts of shares before the last.
fn forgets_shares(text: &str) -> String {
    let planted = text.replace(
        "sh_states[lane].y += sh_states[lane + half].y;",
        "sh_states[lane].y = sh_states[lane + half].y;",
    );
    assert_ne!(planted, text, "the fault is planted");
    planted
}

/// Writes a token one place late.
fn late(text: &str) -> String {
    let planted = text.replace("+ workgroup.x;\n  var page", "+ workgroup.x + 1u;\n  var page");
    assert_ne!(planted, text, "the fault is planted");
    planted
}

#[test]
fn wrong_kernels_around_a_cache_are_refused() {
    let Some(engine) = engine("around_a_cache") else { return };
    engine.plant(Kernel::SplitMerge, forgets_shares);
    let call = Attention::new(Shape { seq_q: 1, ..Shape::self_attention(1, 2, 4096, 32) });
    let plan = engine.plan(&call).unwrap();
    assert_eq!(plan.path(), Path::Fused, "{plan}");
    // The kernels of a path are tried together and refused together.
    assert!(plan.to_string().contains("refused split_forward"), "{plan}");

    engine.plant(Kernel::MergeStates, other_row);
    let usage = wgpu::BufferUsages::STORAGE;
    let buffer = || {
        let descriptor =
            wgpu::BufferDescriptor { label: None, size: 64, usage, mapped_at_creation: false };
        engine.device().create_buffer(&descriptor)
    };
    let [a, b, c, d] = [buffer(), buffer(), buffer(), buffer()];
    let merge = MergeStates { parts: 2, rows: 1, dim_v: 8, dtype: DType::F32 };
    let error = engine.bind_merge(&merge, [(&a).into(), (&b).into()], [(&c).into(), (&d).into()]);
    let error = error.unwrap_err();
    assert!(error.is_unsupported() && error.to_string().contains("self-test"), "{error}");

    engine.plant(Kernel::CacheAppend, late);
    for pages in [None, Some([4, 4])] {
        let descriptor = KvCacheDescriptor { pages, ..KvCacheDescriptor::new(1, 1, 4, 4) };
        let cache = KvCache::new(&engine, &descriptor).unwrap();
        let rows = NewRows { k: (&a).into(), v: (&b).into(), rotary: None };
        let error = cache.bind_append(&engine, &AppendDescriptor::new(1), &rows).unwrap_err();
        assert!(error.is_unsupported() && error.to_string().contains("self-test"), "{error}");
    }
}

/// What counts rows and what copies pages are blamed by their own names.
#[test]
fn wrong_lengths_and_copies_of_a_cache_are_refused() {
    type Edit = fn(&str) -> String;
    let faults: [(Kernel, Edit); 2] = [
        (Kernel::CacheAdvance, |text| text.replace("= length + min(", "= min(")),
        (Kernel::CacheCopy, |text| text.replace("i < params.key_n", "i < params.key_n / 2u")),
    ];
    for (kernel, fault) in faults {
        for pages in [None, Some([4, 4])] {
            let Some(engine) = engine("lengths_and_copies") else { return };
            engine.plant(kernel, fault);
            let size = 64;
            let descriptor = wgpu::BufferDescriptor {
                label: None,
                size,
                usage: wgpu::BufferUsages::STORAGE,
                mapped_at_creation: false,
            };
            let [k, v] = [0, 1].map(|_| engine.device().create_buffer(&descriptor));
            let descriptor = KvCacheDescriptor { pages, ..KvCacheDescriptor::new(1, 1, 4, 4) };
            let cache = KvCache::new(&engine, &descriptor).unwrap();
            let rows = NewRows { k: (&k).into(), v: (&v).into(), rotary: None };
            let error = cache.bind_append(&engine, &AppendDescriptor::new(1), &rows).unwrap_err();
            let [rejection] = error.rejections() else { panic!("{error}") };
            assert!(rejection.candidate.starts_with(kernel.name()), "{error}");
            assert!(rejection.reason.contains("self-test"), "{error}");
        }
    }
}

#[test]
fn the_self_test_can_be_switched_off() {
    let Some(engine) = engine("switched_off") else { return };
    let plan = engine.plan_with(&call(), &off()).unwrap();
    assert_eq!(engine.compiled_kernels(), 0, "planning alone compiles and submits nothing");
    engine.plant(plan.kernels()[0].kernel, no_rescaling);
    // The planted kernel is still the choice, since nobody tried it.
    let again = engine.plan_with(&call(), &off()).unwrap();
    assert_eq!(again.kernels(), plan.kernels());
}

fn off() -> Policy {
    Policy { self_test: SelfTest::Off, ..Policy::default() }
}

#[test]
fn errors_in_a_callers_function_come_back_with_its_own_lines() {
    let Some(engine) = engine("own_lines") else { return };
    let wgsl =
        "// A comment.\n\nfn score_bent(s: f32, p: Position) -> f32 {\n  return s + nowhere;\n}\n";
    let attention = call().score(CustomScore::new("bent", wgsl, |s, _| s));
    let error = engine.plan(&attention).unwrap_err();
    assert!(error.is_invalid(), "{error}");
    assert_eq!(error.argument(), Some("custom/score/bent.wgsl:4"), "{error}");
    assert!(error.to_string().contains("nowhere"), "{error}");

    let named = |name: &str| {
        let wgsl = format!("fn mask_{name}(p: Position) -> bool {{ return true; }}");
        call().keep(CustomMask::new(name, wgsl, |_| true)).validate()
    };
    assert!(named("fine_1").is_ok());
    for name in ["", "1st", "a-b", "causal"] {
        assert!(named(name).unwrap_err().is_invalid(), "{name}");
    }
    let missing = call().keep(CustomMask::new("gone", "fn other() {}", |_| true));
    assert!(missing.validate().unwrap_err().to_string().contains("fn mask_gone("));
}

/// Every feature's known-answer call is itself right: nothing is quarantined on a device that computes right.
#[test]
fn what_is_right_is_not_quarantined() {
    let Some(engine) = engine("what_is_right") else { return };
    let cases = grid(Grid::Quick).unwrap();
    let mut planned = 0;
    for case in cases.iter().step_by(5) {
        let plan = match engine.plan(&case.attention) {
            Ok(plan) => plan,
            Err(error) => panic!("{}: {error}", case.name),
        };
        let blamed = plan.rejections().iter().find(|r| r.reason.contains("self-test"));
        assert!(blamed.is_none(), "{}: {blamed:?}", case.name);
        planned += 1;
    }
    println!("{planned} planned");
}
