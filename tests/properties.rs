//! Properties over arbitrary descriptors: nothing panics, every refusal is typed and named, and what
//! validates also runs and is right.

mod common;

use heedful::verify::data::{CaseData, DataOptions};
use heedful::verify::execute::{Execution, Placement};
use heedful::verify::run::{Outcome, run};
use heedful::verify::truth::Truth;
use heedful::{
    Align, Attention, Capabilities, DType, Layout, Path, Plan, Policy, Shape, Strides, WeightsAt,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// A runner whose cases are the same every time.
fn runner(cases: u32) -> TestRunner {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]))
}

/// Sizes that are small, at an edge, or absurd.
fn size() -> impl Strategy<Value = u32> {
    prop_oneof![0_u32..5, 60_u32..70, 500_u32..520, Just(1 << 28), Just(u32::MAX)]
}

fn align() -> impl Strategy<Value = Align> {
    prop_oneof![
        Just(Align::TopLeft),
        Just(Align::BottomRight),
        any::<i32>().prop_map(Align::Offset),
        (-9..9).prop_map(Align::Offset),
        Just(Align::PerBatch),
    ]
}

fn layout() -> impl Strategy<Value = Layout> {
    let stride = || prop_oneof![Just(0_u64), 1_u64..5000, any::<u64>()];
    prop_oneof![
        Just(Layout::Bhsd),
        Just(Layout::Bshd),
        (stride(), stride(), stride()).prop_map(|(batch, head, row)| Layout::Strided(Strides {
            batch,
            head,
            row
        })),
    ]
}

fn weights() -> impl Strategy<Value = Option<WeightsAt>> {
    prop_oneof![
        Just(None),
        Just(Some(WeightsAt::RawScores)),
        Just(Some(WeightsAt::AfterSoftcap)),
        Just(Some(WeightsAt::AfterBias)),
        Just(Some(WeightsAt::Probabilities)),
    ]
}

fn wild() -> impl Strategy<Value = Attention> {
    let shape = (size(), size(), size(), size(), size(), size(), size());
    let floats = (any::<Option<f32>>(), any::<Option<f32>>());
    let masks = (any::<Option<[u32; 4]>>(), any::<Option<[u32; 4]>>(), any::<[bool; 4]>());
    let aligned = (
        prop::option::of(align()),
        prop::option::of((any::<Option<u32>>(), any::<Option<u32>>(), align())),
        prop::option::of(align()),
    );
    let layouts = (layout(), layout(), layout(), layout());
    let rest = (weights(), prop::option::of((size(), size())), prop::option::of(any::<u32>()));
    (shape, floats, masks, aligned, layouts, rest).prop_map(
        |(s, floats, masks, aligned, l, rest)| {
            let shape = Shape {
                batch: s.0,
                heads_q: s.1,
                heads_kv: s.2,
                seq_q: s.3,
                seq_kv: s.4,
                dim_qk: s.5,
                dim_v: s.6,
            };
            let mut a = Attention::new(shape);
            a.scale = floats.0.map(Into::into);
            a.softcap = floats.1.map(Into::into);
            a.mask = masks.0.map(heedful::Broadcast);
            a.bias = masks.1.map(heedful::Broadcast);
            [a.sinks, a.kv_lengths, a.q_lengths, a.lse] = masks.2;
            a.causal = aligned.0;
            if let Some((left, right, align)) = aligned.1 {
                a = a.window(left, right, align);
            }
            if let Some(align) = aligned.2 {
                a = a.alibi(align);
            }
            (a.layout_q, a.layout_k, a.layout_v, a.layout_o) = l;
            a.weights = rest.0;
            if let Some((q, kv)) = rest.1 {
                a = a.packed(q, kv);
            }
            a.table = rest.2;
            a
        },
    )
}

fn capabilities() -> impl Strategy<Value = Capabilities> {
    let bytes = || prop_oneof![0_u64..300, 1_u64 << 10..1 << 20, Just(1 << 31)];
    (bytes(), bytes(), 0_u32..300, 0_u32..64, any::<[bool; 2]>(), 0_u32..40).prop_map(
        |(binding, buffer, small, subgroup, [f16, subgroups], storage)| Capabilities {
            max_binding_bytes: binding,
            max_buffer_bytes: buffer,
            max_workgroup_bytes: small * 100,
            max_invocations: small,
            max_workgroups: small * 300,
            max_storage_buffers: storage,
            shader_f16: f16,
            subgroups,
            subgroup_size: [subgroup, 64],
            ..Capabilities::default()
        },
    )
}

#[test]
fn arbitrary_descriptors_never_panic_and_refusals_are_named() {
    let check = |(attention, caps): (Attention, Capabilities)| {
        match attention.validate() {
            Err(error) => {
                prop_assert!(error.is_invalid(), "{error}");
                prop_assert!(error.argument().is_some_and(|name| !name.is_empty()), "{error}");
            }
            Ok(problem) => {
                if let Err(error) = Plan::new(&problem, &caps, &Policy::default()) {
                    prop_assert!(error.is_unsupported(), "{error}");
                    prop_assert!(!error.rejections().is_empty(), "{error}");
                }
            }
        }
        Ok(())
    };
    if let Err(failure) = runner(4000).run(&(wild(), capabilities()), check) {
        panic!("{failure}");
    }
}

/// Descriptors that are valid by construction.
fn sane() -> impl Strategy<Value = Attention> {
    let shape = (1_u32..3, 1_u32..3, 1_u32..4, 0_u32..70, 0_u32..70, 1_u32..41, 1_u32..41);
    let features = (any::<[bool; 8]>(), align(), 0_u32..80, 0_u32..80, any::<[bool; 8]>());
    let rest = (0_usize..3, 0_usize..2, weights());
    (shape, features, rest).prop_map(|(s, (on, align, left, right, broadcast), rest)| {
        let align = match align {
            Align::Offset(n) => Align::Offset(n % 50),
            other => other,
        };
        let shape = Shape {
            batch: s.0,
            heads_q: s.1 * s.2,
            heads_kv: s.1,
            seq_q: s.3,
            seq_kv: s.4,
            dim_qk: s.5,
            dim_v: s.6,
        };
        let full = [shape.batch, shape.heads_q, shape.seq_q, shape.seq_kv];
        let part = |from: usize| {
            let mut sizes = full;
            for axis in 0..4 {
                if broadcast[from + axis] {
                    sizes[axis] = 1;
                }
            }
            sizes
        };
        let layout = [Layout::Bhsd, Layout::Bshd][rest.1];
        let mut a = Attention::new(shape).dtype(DType::ALL[rest.0]).layout(layout);
        if on[0] {
            a = a.causal(align);
        }
        if on[1] {
            a = a.window(Some(left), Some(right), align);
        }
        if on[2] {
            a = a.mask(part(0));
        }
        if on[3] {
            a = a.bias(part(4));
        }
        if on[4] {
            a = a.softcap(7.0);
        }
        if on[5] {
            a = a.alibi(align).sinks();
        }
        a.kv_lengths = on[6];
        a.q_lengths = on[7];
        a.lse = true;
        a.weights = rest.2;
        a
    })
}

#[test]
fn what_validates_also_runs_and_is_right() {
    let Some(engine) = common::gpu::engine("what_validates_also_runs") else { return };
    let check = |attention: Attention| {
        let problem = attention.validate().map_err(|e| TestCaseError::fail(e.to_string()))?;
        let data = CaseData::generate(&problem, 77, &DataOptions::default());
        let fail = |e: heedful::Error| TestCaseError::fail(format!("{problem}: {e}"));
        let truth = Truth::measure(&problem, &data.inputs()).map_err(fail)?;
        for path in [Path::Fused, Path::Staged] {
            let compare = |x: &Execution| truth.check(&problem, &x.outputs);
            let inputs = data.inputs();
            let outcome = run(&engine, &attention, path, &inputs, Placement::Odd, compare);
            match outcome.map_err(fail)? {
                Outcome::Unsupported(why) => prop_assert!(attention.weights.is_some(), "{why}"),
                Outcome::Ran(ran) => prop_assert_eq!(ran.failure(), None, "{} {}", problem, path),
            }
        }
        Ok(())
    };
    if let Err(failure) = runner(60).run(&sane(), check) {
        panic!("{failure}");
    }
}
