//! The caller's own score modifiers and masks, on every path, against their closures.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod common;

use heedful::verify::data::{CaseData, DataOptions};
use heedful::verify::execute::Placement;
use heedful::verify::run::{Outcome, run};
use heedful::verify::truth::Truth;
use heedful::{Align, Attention, CustomMask, CustomScore, DType, Engine, Path, Shape};

fn check(engine: &Engine, attention: &Attention, table: &[u32]) {
    let problem = attention.validate().unwrap();
    let mut data = CaseData::generate(&problem, 11, &DataOptions::default());
    data.table = table.to_vec();
    let truth = Truth::measure(&problem, &data.inputs()).unwrap();
    for path in [Path::Fused, Path::Staged] {
        for placement in [Placement::Aligned, Placement::Odd] {
            let compare =
                |x: &heedful::verify::execute::Execution| truth.check(&problem, &x.outputs);
            match run(engine, attention, path, &data.inputs(), placement, compare).unwrap() {
                Outcome::Ran(ran) => assert_eq!(ran.failure(), None, "{problem} {path}"),
                Outcome::Unsupported(why) => panic!("{problem} {path}: {why}"),
            }
        }
    }
}

#[test]
fn prefix_masks_and_distance_scores_match_their_closures() {
    let Some(engine) = common::gpu::engine("custom_functions") else { return };
    let prefix = || {
        let wgsl = "fn mask_prefix(p: Position) -> bool { return p.key < 20u || p.key <= p.row; }";
        CustomMask::new("prefix", wgsl, |at| at.key < 20 || at.key <= at.row)
    };
    let near = || {
        let wgsl = "fn score_near(s: f32, p: Position) -> f32 {\n\
                      return s - 0.25 * abs(f32(p.row) - f32(p.key)) / f32(p.head + 1u);\n\
                    }";
        CustomScore::new("near", wgsl, |s, at| {
            s - 0.25 * (f64::from(at.row) - f64::from(at.key)).abs() / f64::from(at.head + 1)
        })
    };
    for (dim, dtype) in [(64, DType::F32), (33, DType::F16), (128, DType::Bf16)] {
        let shape = Shape { heads_kv: 1, seq_q: 70, ..Shape::self_attention(2, 3, 90, dim) };
        let plain = Attention::new(shape).dtype(dtype).with_lse();
        check(&engine, &plain.clone().keep(prefix()), &[]);
        check(&engine, &plain.clone().score(near()), &[]);
        let all = plain.keep(prefix()).score(near()).softcap(8.0).sinks().kv_lengths();
        check(&engine, &all.window(Some(50), None, Align::BottomRight), &[]);
    }
}

#[test]
fn document_masks_read_the_callers_table() {
    let Some(engine) = common::gpu::engine("document_masks") else { return };
    // Three documents packed in one sequence; no key of another document is visible.
    let documents: Vec<u32> = (0..100).map(|i| u32::from(i >= 30) + u32::from(i >= 77)).collect();
    let wgsl =
        "fn mask_document(p: Position) -> bool { return table_word(p.row) == table_word(p.key); }";
    let known = documents.clone();
    let mask = CustomMask::new("document", wgsl, move |at| {
        known[at.row as usize] == known[at.key as usize]
    });
    let attention = Attention::new(Shape::self_attention(1, 2, 100, 40)).keep(mask).table(100);
    check(&engine, &attention.clone().causal(Align::TopLeft), &documents);
    check(&engine, &attention.with_lse(), &documents);
}
