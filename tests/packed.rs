//! Packed sequences of different lengths: right, and nothing outside them touched.

#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod common;

use heedful::Operands;
use heedful::plan::MAX_ROWS;
use heedful::reference::{Inputs, Outputs};
use heedful::verify::data::{CaseData, DataOptions};
use heedful::verify::execute::{Execution, Placement};
use heedful::verify::run::{Outcome, run};
use heedful::verify::truth::Truth;
use heedful::{
    Align, Attention, DType, Engine, Layout, Normalizer, Operand, Path, Policy, Rotary, Shape,
    Tree, WeightsAt,
};

fn check(engine: &Engine, attention: &Attention) {
    let problem = attention.validate().unwrap();
    let data = CaseData::generate(&problem, 21, &DataOptions::default());
    let truth = Truth::measure(&problem, &data.inputs()).unwrap();
    let few = attention.shape.seq_q <= MAX_ROWS;
    let paths = [Path::Split, Path::Fused, Path::Staged].into_iter();
    for path in paths.filter(|path| few || *path != Path::Split) {
        for placement in [Placement::Aligned, Placement::Odd] {
            let compare = |x: &Execution| truth.check(&problem, &x.outputs);
            match run(engine, attention, path, &data.inputs(), placement, compare).unwrap() {
                Outcome::Ran(ran) => assert_eq!(ran.failure(), None, "{problem} {path}"),
                Outcome::Unsupported(why) => panic!("{problem} {path}: {why}"),
            }
        }
    }
    // The engine's own host path, self-test included.
    let plan = engine.plan(attention).unwrap();
    let outputs = engine.run_host(&plan, &data.inputs()).unwrap();
    for (operand, comparison) in truth.check(&problem, &outputs) {
        assert!(comparison.pass, "{problem} {operand}: {}", comparison.message());
    }
}

// A test for each storage, so that two cores compile.
#[test]
fn packed_sequences_in_f32_match_the_reference_and_touch_nothing_else() {
    packed_sequences(64, DType::F32);
}

#[test]
fn packed_sequences_in_f16_match_the_reference_and_touch_nothing_else() {
    packed_sequences(33, DType::F16);
}

#[test]
fn packed_sequences_in_bf16_match_the_reference_and_touch_nothing_else() {
    packed_sequences(40, DType::Bf16);
}

fn packed_sequences(dim: u32, dtype: DType) {
    let Some(engine) = common::gpu::engine("packed_sequences") else { return };
    let shape = Shape { heads_kv: 2, seq_q: 70, ..Shape::self_attention(5, 4, 90, dim) };
    // Room after the last sequence stays untouched.
    let plain = Attention::new(shape).dtype(dtype).packed(190, 240).with_lse();
    check(&engine, &plain);
    let masked = plain.clone().causal(Align::BottomRight).alibi(Align::BottomRight).sinks();
    check(&engine, &masked.window(Some(20), None, Align::BottomRight).softcap(9.0));
    check(&engine, &plain.causal(Align::TopLeft).bias([5, 1, 70, 90]).mask([1, 4, 1, 90]));
    // Few rows, so that the keys are split as well.
    let few = Attention::new(Shape { seq_q: 7, ..shape }).dtype(dtype).packed(30, 240);
    check(&engine, &few.clone().with_lse().causal(Align::BottomRight).sinks());
    for shared in [false, true] {
        check(&engine, &few.clone().tree(Tree { align: Align::BottomRight, shared }));
    }
}

#[test]
fn packed_sequences_with_contradictions_are_refused() {
    let packed = || Attention::new(Shape::self_attention(2, 2, 8, 4)).packed(10, 12);
    let refused = |attention: Attention| {
        let error = attention.validate().unwrap_err();
        assert!(error.is_invalid(), "{error}");
        error.argument().unwrap_or_default().to_owned()
    };
    assert!(packed().validate().is_ok());
    // Keys may fill a part of their own; those in pages are not packed.
    assert!(packed().kv_lengths().validate().is_ok());
    assert_eq!(refused(packed().kv_lengths().paged(5, 4, 2)), "total_kv");
    assert_eq!(refused(packed().q_lengths()), "q_lengths");
    // Rows alone.
    let rows = || Attention::new(Shape::self_attention(2, 2, 8, 4)).kv_lengths().packed(10, 0);
    assert!(rows().validate().is_ok() && rows().paged(5, 4, 2).validate().is_ok());
    assert_eq!(rows().validate().unwrap().attention().layout_k, Layout::Bhsd);
    assert_eq!(refused(rows().layout(Layout::Bhsd)), "layout");
    assert_eq!(refused(packed().layout(Layout::Bhsd)), "layout");
    assert_eq!(refused(packed().normalizer(Normalizer::Monotonic)), "normalizer");
    assert_eq!(refused(Attention { packed: None, ..packed() }.packed(u32::MAX, 1)), "total_q");
}

/// Prompts and single tokens in one call, against keys in pages or with lengths: the rows are those of the padded call.
#[test]
fn packed_rows_against_a_cache_are_those_of_the_padded_call() {
    let Some(engine) = common::gpu::engine("packed_rows_against_a_cache") else { return };
    let lengths: [u32; 4] = [17, 1, 0, 1];
    let shape = Shape { batch: 4, seq_q: 17, seq_kv: 80, ..Shape::self_attention(4, 4, 80, 24) };
    let keys = Attention::new(Shape { heads_kv: 2, ..shape }).causal(Align::BottomRight).with_lse();
    let total = lengths.iter().sum();
    // Rows that are turned by their places at the end of the keys, which lie turned already.
    let rotary = Rotary { at_end: true, keys_from: 80, ..Rotary::new(16, 100) };
    let turned = keys.clone().rotary(rotary);
    for keys in [
        keys.clone().kv_lengths(),
        keys.paged(24, 16, 6),
        turned.clone().kv_lengths(),
        turned.paged(24, 16, 6),
    ] {
        let padded = keys.clone().q_lengths();
        let packed = keys.packed(total, 0);
        let problem = padded.validate().unwrap();
        let mut data = CaseData::generate(&problem, 5, &DataOptions::default());
        data.q_lengths = lengths.to_vec();
        let mut rows = CaseData { q: Vec::new(), cu_seqlens_q: vec![0], ..data.clone() };
        for (batch, length) in (0..).zip(lengths) {
            for (row, head) in (0..length).flat_map(|row| (0..4).map(move |head| (row, head))) {
                let at = problem.index(Operand::Q, [batch, head, row], &data.operands()) as usize;
                rows.q.extend_from_slice(&data.q[at..at + 24]);
            }
            rows.cu_seqlens_q.push(rows.cu_seqlens_q[batch as usize] + length);
        }
        for path in [Path::Fused, Path::Staged] {
            let run = |attention: &Attention, data: &CaseData| {
                let policy = Policy { path, ..Policy::default() };
                let plan = engine.plan_with(attention, &policy).unwrap();
                engine.run_host(&plan, &data.inputs()).unwrap()
            };
            let (padded_o, packed_o) = (run(&padded, &data), run(&packed, &rows));
            for (row, [batch, head, at]) in shape.row_positions().enumerate() {
                if at < lengths[batch as usize] {
                    let place = format!("{path} {batch},{head},{at}");
                    let o = |x: &Outputs| x.o[row * 24..][..24].to_vec();
                    assert_eq!(o(&packed_o), o(&padded_o), "{place}");
                    assert_eq!(packed_o.lse[row], padded_o.lse[row], "{place}");
                }
            }
        }
    }
}

/// Weights of the padded call where both have rows and keys, and 0 elsewhere.
#[test]
fn weights_of_packed_sequences_are_those_of_the_padded_call() {
    let Some(engine) = common::gpu::engine("packed_weights") else { return };
    let lengths = [9, 0, 20];
    let shape = Shape { heads_kv: 1, ..Shape::self_attention(3, 2, 20, 8) };
    let call = Attention::new(shape).rotary(Rotary::new(8, 30)).causal(Align::TopLeft);
    let call = call.with_weights(WeightsAt::Probabilities);
    let padded = call.clone().q_lengths().kv_lengths();
    let packed = call.packed(29, 29);
    let mut data = CaseData::generate(&padded.validate().unwrap(), 5, &DataOptions::default());
    (data.q_lengths, data.kv_lengths) = (lengths.to_vec(), lengths.to_vec());
    let own = |values: &[f64], heads: usize| {
        let mut rows = Vec::new();
        for (batch, length) in lengths.iter().enumerate() {
            for (row, head) in (0..*length).flat_map(|row| (0..heads).map(move |head| (row, head)))
            {
                let at = ((batch * heads + head) * 20 + row as usize) * 8;
                rows.extend_from_slice(&values[at..at + 8]);
            }
        }
        rows
    };
    let [q, k, v] = [own(&data.q, 2), own(&data.k, 1), own(&data.v, 1)];
    let starts = vec![0, 9, 9, 29];
    let rows = CaseData {
        q,
        k,
        v,
        cu_seqlens_q: starts.clone(),
        cu_seqlens_kv: starts,
        q_lengths: Vec::new(),
        kv_lengths: Vec::new(),
        ..data.clone()
    };
    let run = |attention: &Attention, data: &CaseData| {
        engine.run_host(&engine.plan(attention).unwrap(), &data.inputs()).unwrap().weights.unwrap()
    };
    let (padded, packed) = (run(&padded, &data), run(&packed, &rows));
    assert_eq!(padded, packed);
    assert_eq!(packed.iter().filter(|w| **w != 0.0).count(), 2 * (9 * 10 / 2 + 20 * 21 / 2));
}

#[test]
fn tables_that_point_outside_read_as_masked() {
    let Some(engine) = common::gpu::engine("tables_outside") else { return };
    let plain = Attention::new(Shape::self_attention(3, 2, 20, 16)).packed(30, 30).with_lse();
    // What is turned lies in copies, where sequences that share rows would share these too.
    let turned = plain.clone().rotary(Rotary::new(16, 50));
    for (attention, keys) in [(plain, [5, 900, 20, 30]), (turned, [5, 25, 900, 30])] {
        let problem = attention.validate().unwrap();
        let mut data = CaseData::generate(&problem, 3, &DataOptions::default());
        data.cu_seqlens_q = vec![0, 10, 4_000_000_000, 7];
        data.cu_seqlens_kv = keys.to_vec();
        let truth = Truth::measure(&problem, &data.inputs()).unwrap();
        for path in [Path::Fused, Path::Staged] {
            let compare = |x: &Execution| truth.check(&problem, &x.outputs);
            let inputs = data.inputs();
            match run(&engine, &attention, path, &inputs, Placement::Aligned, compare).unwrap() {
                Outcome::Ran(ran) => assert_eq!(ran.failure(), None, "{path}"),
                Outcome::Unsupported(why) => panic!("{path}: {why}"),
            }
        }
    }
}

/// Of each sequence's own keys the first so many: as if the others had never been packed.
#[test]
fn lengths_within_packed_keys_leave_the_rest_out() {
    let shape =
        Shape { batch: 2, heads_q: 2, heads_kv: 1, seq_q: 3, seq_kv: 6, dim_qk: 4, dim_v: 4 };
    let call = Attention::new(shape).causal(Align::BottomRight);
    let noise = |n: usize| (0..n).map(|i| f64::from((i as f32 * 1.7).sin())).collect::<Vec<_>>();
    let (q, all) = (noise(5 * 2 * 4), noise(10 * 4));
    // Sequences of 4 and 6 keys, which have filled 3 and 5 of them.
    let kept = [&all[..3 * 4], &all[4 * 4..9 * 4]].concat();
    let attended = |call: Attention, keys: &[f64], starts: &[u32], lengths: &[u32]| {
        let operands = Operands {
            cu_seqlens_q: &[0, 2, 5],
            cu_seqlens_kv: starts,
            kv_lengths: lengths,
            ..Operands::default()
        };
        let inputs = Inputs { q: &q, k: keys, v: keys, operands };
        call.validate().unwrap().reference(&inputs).unwrap().o
    };
    let lengths = attended(call.clone().packed(5, 10).kv_lengths(), &all, &[0, 4, 10], &[3, 5]);
    assert_eq!(lengths, attended(call.packed(5, 8), &kept, &[0, 3, 8], &[]));
}
