//! Verdicts blame only what is wrong: partners of a wrong kernel go on, a caller's numbers and functions
//! condemn nothing, and what was found can be kept.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod common;

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use common::gpu::engine;
use heedful::kernel::Kernel;
use heedful::layer::MultiHeadAttention;
use heedful::{
    Align, Attention, CustomMask, CustomScore, DType, Engine, Normalizer, Path, Plan, Policy,
    Rotary, Scalar, SelfTest, Shape, WeightsAt, wgpu,
};

fn plain() -> Attention {
    Attention::new(Shape::self_attention(1, 2, 80, 32))
}

fn on(path: Path) -> Policy {
    Policy { path, ..Policy::default() }
}

fn rotary() -> Attention {
    plain().rotary(Rotary::new(32, 128))
}

/// Why candidates were refused on the way to a plan, or to none.
fn refusals(plan: &heedful::Result<Plan>) -> Vec<String> {
    let rejections = match plan {
        Ok(plan) => plan.rejections(),
        Err(error) => error.rejections(),
    };
    let blamed = rejections.iter().filter(|x| x.reason.contains("self-test"));
    blamed.map(|x| format!("{}: {}", x.candidate, x.reason)).collect()
}

/// A wrong result by any kernel that stores o.
fn wrong_output(text: &str) -> String {
    swap(
        text,
        "fn o_store4(i: u32, n: u32, v: vec4<f32>) {",
        "fn o_store4(i: u32, n: u32, w: vec4<f32>) { let v = w * 1.5;",
    )
}

fn swap(text: &str, from: &str, to: &str) -> String {
    let planted = text.replace(from, to);
    assert_ne!(planted, text, "{from:?} is planted");
    planted
}

/// Scores of the second key in place of the first's, with a softcap only.
fn wrong_capped_scores(text: &str) -> String {
    if !text.contains("fn score_softcap(") {
        return text.to_owned();
    }
    swap(
        text,
        "fn score_softcap(s: f32, p: Position) -> f32 {",
        "fn score_softcap(t: f32, p: Position) -> f32 { let s = t + 0.1 * f32(p.key % 3u);",
    )
}

fn wrong_prepared(text: &str) -> String {
    swap(text, "o[i >> 2u] = ", "o[i >> 2u] = 1.5 * ")
}

fn wrong_table(text: &str) -> String {
    swap(text, "= visited | whole;", "= visited | (visited << 1u);")
}

fn wrong_normalized(text: &str) -> String {
    swap(
        text,
        "let inverse = normalize_scale(total, total);",
        "let inverse = 1.5 * normalize_scale(total, total);",
    )
}

fn wrong_threshold(text: &str) -> String {
    swap(text, "inverse_sums[part.scratch_row] = 1.0;", "inverse_sums[part.scratch_row] = 1.5;")
}

fn wrong_average(text: &str) -> String {
    swap(text, "sum / f32(params.head_n)", "sum / f32(params.head_n + 1u)")
}

/// Each row: what is wrong, the call and the path that meet it, the kernel that is blamed, and what must go
/// on after it.
#[test]
fn partners_of_a_wrong_kernel_go_on() {
    struct Row {
        planted: &'static [Kernel],
        edit: fn(&str) -> String,
        call: Attention,
        path: Path,
        blamed: &'static [&'static str],
        goes_on: Vec<(Attention, Path)>,
    }
    let capped = || plain().softcap(2.0);
    let masked = || plain().mask([1, 1, 80, 80]);
    let one = Attention::new(Shape { seq_q: 1, ..Shape::self_attention(1, 2, 4096, 32) });
    let fused = &[Kernel::FusedForward, Kernel::FusedForwardSubgroup];
    let sparse = || plain().normalizer(Normalizer::Sparsemax);
    let rows = [
        // Everything that a rotary call shares with the fused path.
        Row {
            planted: fused,
            edit: wrong_output,
            call: rotary(),
            path: Path::Fused,
            blamed: &["fused_forward"],
            goes_on: vec![(rotary(), Path::Staged), (rotary(), Path::Auto)],
        },
        Row {
            planted: &[Kernel::StagedValue],
            edit: wrong_output,
            call: rotary(),
            path: Path::Staged,
            blamed: &["staged_value"],
            goes_on: vec![(rotary(), Path::Fused)],
        },
        Row {
            planted: &[Kernel::Prepare],
            edit: wrong_prepared,
            call: rotary(),
            path: Path::Auto,
            blamed: &["prepare"],
            goes_on: vec![(plain(), Path::Fused), (plain(), Path::Staged)],
        },
        Row {
            planted: &[Kernel::StagedScore],
            edit: wrong_capped_scores,
            call: capped(),
            path: Path::Staged,
            blamed: &["staged_score"],
            goes_on: vec![(plain(), Path::Staged), (capped(), Path::Fused)],
        },
        Row {
            planted: &[Kernel::StagedNormalize],
            edit: wrong_normalized,
            call: plain(),
            path: Path::Staged,
            blamed: &["staged_normalize"],
            goes_on: vec![(sparse(), Path::Staged), (plain(), Path::Fused)],
        },
        Row {
            planted: &[Kernel::StagedThreshold],
            edit: wrong_threshold,
            call: sparse(),
            path: Path::Staged,
            blamed: &["staged_threshold"],
            goes_on: vec![(plain(), Path::Staged)],
        },
        Row {
            planted: &[Kernel::Classify],
            edit: wrong_table,
            call: masked(),
            path: Path::Fused,
            blamed: &["classify"],
            goes_on: vec![(masked(), Path::Staged), (plain(), Path::Fused)],
        },
        Row {
            planted: &[Kernel::SplitForward],
            edit: wrong_capped_scores,
            call: one.clone().softcap(2.0),
            path: Path::Split,
            blamed: &["split_forward", "split_merge"],
            goes_on: vec![(one.clone(), Path::Split), (one.clone().softcap(2.0), Path::Fused)],
        },
        Row {
            planted: &[Kernel::SplitMerge],
            edit: wrong_output,
            call: one.clone(),
            path: Path::Split,
            blamed: &["split_forward", "split_merge"],
            goes_on: vec![(one.clone(), Path::Fused), (one.clone(), Path::Auto)],
        },
    ];
    for row in rows {
        let Some(engine) = engine("partners_go_on") else { return };
        for kernel in row.planted {
            engine.plant(*kernel, row.edit);
        }
        let plan = engine.plan_with(&row.call, &on(row.path));
        let refused = refusals(&plan);
        let what = row.blamed[0];
        assert!(!refused.is_empty(), "{what}: {plan:?}");
        for reason in &refused {
            let blamed = row.blamed.iter().all(|name| reason.contains(name));
            let (candidate, _) = reason.split_once(": ").unwrap();
            assert!(
                blamed && candidate.split(" with ").count() <= row.blamed.len(),
                "{what}: {reason}"
            );
        }
        for (call, path) in row.goes_on {
            let plan = engine.plan_with(&call, &on(path));
            assert!(plan.is_ok(), "{what} on {path}: {plan:?}");
            if path != Path::Auto {
                assert!(refusals(&plan).is_empty(), "{what} on {path}: {:?}", refusals(&plan));
            }
        }
    }
}

#[test]
fn the_average_over_heads_proves_itself() {
    let Some(engine) = engine("average") else { return };
    engine.plant(Kernel::Average, wrong_average);
    let shown = plain().with_weights(WeightsAt::Probabilities);
    let layer = MultiHeadAttention { average_weights: true, ..MultiHeadAttention::new(shown, 64) };
    let error = engine.plan_layer(&layer, &Policy::default()).unwrap_err();
    assert!(error.is_unsupported() && error.to_string().contains("self-test"), "{error}");
    let without = MultiHeadAttention { average_weights: false, ..layer };
    assert!(engine.plan_layer(&without, &Policy::default()).is_ok());
}

#[test]
fn block_builders_and_prepared_rows_prove_themselves() {
    let Some(engine) = engine("builders") else { return };
    engine.plant(Kernel::Classify, wrong_table);
    engine.plant(Kernel::Prepare, wrong_prepared);
    let buffer = |bytes| {
        engine.device().create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: bytes,
            usage: wgpu::BufferUsages::STORAGE,
            mapped_at_creation: false,
        })
    };
    let (rows, out, mask) = (buffer(4 * 2 * 80 * 32), buffer(4 * 2 * 80 * 32), buffer(80 * 80));
    let mut tensors = heedful::Tensors::new(&rows, &rows, &rows, &out);
    let (cos, sin) = (vec![1.0; 128 * 16], vec![0.0; 128 * 16]);
    tensors.rotary_cos = Some(heedful::Table::F32(&cos));
    tensors.rotary_sin = Some(heedful::Table::F32(&sin));
    let error = engine.bind_rows(&rotary(), &tensors).unwrap_err();
    assert!(error.is_unsupported() && error.to_string().contains("prepare"), "{error}");
    let mut tensors = heedful::Tensors::new(&rows, &rows, &rows, &out);
    tensors.mask = Some((&mask).into());
    let blocks = heedful::Blocks::new(32, 32);
    let error = engine.bind_blocks(&plain().mask([1, 1, 80, 80]), blocks, &tensors).unwrap_err();
    assert!(error.is_unsupported() && error.to_string().contains("classify"), "{error}");
}

/// Whatever numbers a call asks for, the verdict is the kernel's.
#[test]
fn a_callers_numbers_condemn_nothing() {
    let Some(engine) = engine("callers_numbers") else { return };
    let wide = |dtype| Attention::new(Shape::self_attention(1, 1, 8, 512)).dtype(dtype);
    let squared = |divisor| Normalizer::Relu { power: 2, divisor: Scalar(divisor) };
    let calls = [
        plain().scale(1e38),
        plain().scale(0.0),
        plain().softcap(1e-30),
        plain().softcap(3e38),
        wide(DType::F16).normalizer(squared(1.0)),
        wide(DType::F16).normalizer(squared(512.0)),
        wide(DType::F16).normalizer(Normalizer::Raw).scale(1000.0),
        wide(DType::F32).normalizer(Normalizer::Raw).scale(1000.0),
        wide(DType::F16).normalizer(Normalizer::Sigmoid { bias: Scalar(-1e30) }),
        plain().causal(Align::Offset(1 << 20)),
        plain().window(Some(0), Some(0), Align::Offset(-(1 << 20))),
        plain().chunked(1 << 28, Align::TopLeft),
        plain().additive(1e30),
        plain().local_gaussian(1e30),
        plain(),
    ];
    for call in calls {
        for path in [Path::Fused, Path::Staged] {
            let plan = engine.plan_with(&call, &on(path));
            let blamed = refusals(&plan);
            assert!(plan.is_ok() && blamed.is_empty(), "{path} {call:?}: {plan:?}");
        }
    }
}

const DOCUMENTS: [u32; 32] = {
    let mut ids = [0; 32];
    let mut i = 0;
    while i < 32 {
        ids[i] = i as u32 / 9;
        i += 1;
    }
    ids
};

/// Documents of nine tokens.
const DOCUMENT_MASK: &str =
    "fn mask_document(p: Position) -> bool { return p.row / 9u == p.key / 9u; }";

#[test]
fn closures_are_asked_for_positions_of_the_call_only() {
    let Some(engine) = engine("positions_of_the_call") else { return };
    let mask = CustomMask::new("document", DOCUMENT_MASK, |at| {
        // Panics beyond the call's 32 tokens.
        DOCUMENTS[at.row as usize] == DOCUMENTS[at.key as usize]
    });
    let call = |seq_q| {
        let shape = Shape { seq_q, ..Shape::self_attention(2, 2, 32, 16) };
        Attention::new(shape).keep(mask.clone())
    };
    for (seq_q, path) in [(32, Path::Fused), (32, Path::Staged), (2, Path::Split), (32, Path::Auto)]
    {
        let plan = engine.plan_with(&call(seq_q), &on(path));
        assert!(plan.is_ok(), "{path}: {plan:?}");
        assert!(refusals(&plan).is_empty(), "{path}: {:?}", refusals(&plan));
    }
}

#[test]
fn a_closure_that_panics_is_named() {
    let Some(engine) = engine("closure_panics") else { return };
    let mask = CustomMask::new("document", DOCUMENT_MASK, |at| {
        assert!(at.key != 3, "no key 3 here");
        true
    });
    let error = engine.plan(&plain().keep(mask)).unwrap_err();
    assert_eq!(error.argument(), Some("custom mask \"document\""), "{error}");
    assert!(error.to_string().contains("no key 3 here"), "{error}");
    assert!(error.to_string().contains("key 3"), "{error}");
}

#[test]
fn wgsl_that_differs_from_its_closure_is_the_callers_mistake() {
    let Some(engine) = engine("differs") else { return };
    let even = "fn mask_even(p: Position) -> bool { return p.key % 2u == 0u; }";
    let late = "fn score_late(s: f32, p: Position) -> f32 { return s + 0.5 * f32(p.key); }";
    let score = |by: f64| CustomScore::new("late", late, move |s, at| s + by * f64::from(at.key));
    let mask = |rest: u32| CustomMask::new("even", even, move |at| at.key % 2 == rest);

    let error = engine.plan(&plain().score(score(0.5)).keep(mask(1))).unwrap_err();
    assert_eq!(error.argument(), Some("custom mask \"even\""), "{error}");
    let text = error.to_string();
    assert!(text.contains("true from its WGSL at batch 0, head 0, row 0, key 0"), "{text}");
    assert!(text.contains("want false, as its closure says"), "{text}");
    let error = engine.plan(&plain().score(score(0.25))).unwrap_err();
    assert_eq!(error.argument(), Some("custom score \"late\""), "{error}");

    // Nothing is quarantined: other calls, and the same with only the closure mended, plan as ever.
    for call in [plain(), plain().score(score(0.5)).keep(mask(0)), plain().score(score(0.5))] {
        for path in [Path::Fused, Path::Staged] {
            let plan = engine.plan_with(&call, &on(path));
            assert!(plan.is_ok() && refusals(&plan).is_empty(), "{path}: {plan:?}");
        }
    }
    // A right closure does not vouch for a wrong one of the same WGSL.
    assert!(engine.plan(&plain().keep(mask(1))).unwrap_err().is_invalid());
}

/// Polls a future until it is ready, on this thread; counts how often it was not.
fn poll_through<T>(future: impl Future<Output = T>) -> (T, usize) {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = std::pin::pin!(future);
    let mut pending = 0;
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return (value, pending),
            Poll::Pending => pending += 1,
        }
        std::thread::park();
    }
}

fn sendable<T: Send>(value: T) -> T {
    value
}

#[test]
fn planning_can_be_awaited() {
    let Some(engine) = engine("awaited") else { return };
    let policy = Policy::default();
    let call = plain();
    let (plan, pending) = poll_through(sendable(engine.plan_async(&call, &policy)));
    assert!(pending > 0, "compiling and trying take time, which the thread has for itself");
    let plan = plan.unwrap();
    let compiled = engine.compiled_kernels();
    let (again, pending) = poll_through(engine.plan_async(&call, &policy));
    assert_eq!((again.unwrap(), pending), (plan, 0), "nothing is left to wait for");
    assert_eq!(engine.compiled_kernels(), compiled);
    // The same faults are found.
    let engine = common::gpu::engine("awaited").unwrap();
    engine.plant(Kernel::StagedValue, wrong_output);
    let staged = on(Path::Staged);
    let (plan, _) = poll_through(engine.plan_async(&call, &staged));
    assert!(refusals(&plan)[0].starts_with("staged_value"), "{plan:?}");
}

#[test]
fn what_is_warm_is_there_at_the_first_call() {
    let Some(engine) = engine("warm") else { return };
    let calls =
        [plain(), rotary(), plain().normalizer(Normalizer::Sparsemax), plain().scale(f32::NAN)];
    let policy = Policy::default();
    let (plans, _) = poll_through(sendable(engine.warm(&calls, &policy)));
    assert_eq!(plans.len(), 4);
    assert!(plans[3].as_ref().unwrap_err().is_invalid());
    let compiled = engine.compiled_kernels();
    for (call, plan) in calls.iter().zip(&plans).take(3) {
        assert_eq!(&engine.plan(call).unwrap(), plan.as_ref().unwrap());
    }
    assert_eq!(engine.compiled_kernels(), compiled, "everything was there");
}

#[test]
fn verdicts_can_be_kept() {
    let Some(engine) = engine("kept") else { return };
    let call = plain().causal(Align::TopLeft);
    engine.plant(Kernel::StagedValue, wrong_output);
    let plan = engine.plan(&call).unwrap();
    let refused = refusals(&engine.plan_with(&call, &on(Path::Staged)));
    assert!(!refused.is_empty());
    let saved = engine.save_verdicts();

    let second = common::gpu::engine("kept").unwrap();
    let restored = second.restore_verdicts(&saved).unwrap();
    assert_eq!(restored, saved.lines().count() - 5, "{saved}");
    assert_eq!(second.plan(&call).unwrap(), plan);
    assert_eq!(second.compiled_kernels(), 0, "what is known is not tried again");
    assert_eq!(refusals(&second.plan_with(&call, &on(Path::Staged))), refused);
    assert_eq!(second.save_verdicts(), saved);

    // Of another driver or version nothing is taken, and what is no such text is refused whole.
    let fresh = || common::gpu::engine("kept").unwrap();
    let other = |from: &str, to: &str| saved.replacen(from, to, 1);
    for text in [other("\ndriver ", "\ndriver an older "), other("\nversion ", "\nversion 9")] {
        let engine = fresh();
        assert_eq!(engine.restore_verdicts(&text).unwrap(), 0);
        assert!(tries(&engine, &call));
    }
    for text in ["", "something else", &format!("{saved}right nonsense\n")] {
        let engine = fresh();
        assert!(engine.restore_verdicts(text).unwrap_err().is_invalid(), "{text:?}");
        assert!(tries(&engine, &call));
    }
}

/// Whether planning a call compiles anything, that is, tries it.
fn tries(engine: &Engine, call: &Attention) -> bool {
    engine.plan(call).unwrap();
    engine.compiled_kernels() > 0
}

#[test]
fn nothing_is_tried_where_that_is_switched_off() {
    let Some(engine) = engine("off") else { return };
    let off = Policy { self_test: SelfTest::Off, ..Policy::default() };
    let wrong = CustomMask::new("document", DOCUMENT_MASK, |_| panic!("asked"));
    assert!(engine.plan_with(&plain().keep(wrong), &off).is_ok());
    assert_eq!(engine.compiled_kernels(), 0);
}
