//! Dropout: what is refused, and that weights left out are those that the descriptor says, alike on every path.

#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod common;

use heedful::verify::data::{CaseData, DataOptions};
use heedful::{Attention, DType, Engine, Normalizer, Path, Policy, Shape, WeightsAt};

#[test]
fn a_rate_or_a_normaliser_that_cannot_be_is_refused() {
    let call = || Attention::new(Shape::self_attention(1, 2, 9, 5));
    for rate in [-0.1, 1.0, f32::NAN, f32::INFINITY] {
        let error = call().dropout(rate, 0).validate().unwrap_err();
        assert!(error.is_invalid() && error.argument() == Some("dropout rate"), "{error}");
    }
    for normalizer in [Normalizer::Hard, Normalizer::Sample { seed: 1 }] {
        let error = call().normalizer(normalizer).dropout(0.5, 0).validate().unwrap_err();
        assert_eq!(error.argument(), Some("dropout"), "{error}");
    }
    assert!(call().dropout(0.0, u64::MAX).validate().is_ok());
}

/// With v of ones each row of o is the sum of the weights that stay, over 1 − rate: all paths leave out the same.
#[test]
fn all_paths_leave_out_the_same_weights_and_another_seed_others() {
    let Some(engine) = common::gpu::engine("all_paths_leave_out") else { return };
    let shape = Shape { heads_kv: 2, ..Shape::self_attention(2, 4, 40, 16) };
    let call = |seed| Attention::new(shape).dtype(DType::F32).dropout(0.3, seed);
    let mut data = CaseData::generate(&call(0).validate().unwrap(), 3, &DataOptions::default());
    data.v.fill(1.0);
    let sums = |attention: &Attention, path: Path| {
        let policy = Policy { path, ..Policy::default() };
        let plan = engine.plan_with(attention, &policy).unwrap();
        engine.run_host(&plan, &data.inputs()).unwrap()
    };
    let shown = sums(&call(5).with_weights(WeightsAt::Probabilities), Path::Staged);
    let weights = shown.weights.unwrap();
    let dropped = weights.iter().filter(|w| **w == 0.0).count() as f64 / weights.len() as f64;
    assert!((dropped - 0.3).abs() < 0.03, "{dropped} of the weights are left out");
    let kept: Vec<f64> = weights.chunks(40).map(|row| row.iter().sum()).collect();
    // 40 rows are split on tiles.
    for path in [Path::Fused, Path::FusedTile, Path::Split, Path::Staged] {
        for (row, sum) in sums(&call(5), path).o.chunks(16).map(|row| row[0]).zip(&kept) {
            assert!((row - sum).abs() < 1e-5, "{path}: {row} where the weights sum to {sum}");
        }
    }
    // Few rows are split row by row, and leave out what the first rows of many do.
    let few = Shape { seq_q: 7, ..shape };
    let few = Attention::new(few).dropout(0.3, 5);
    let row = 16 * 40;
    let (of_few, of_all) = (sums_of_few(&engine, &few, &data), sums(&call(5), Path::Fused).o);
    for (pair, o) in of_few.chunks(7 * 16).enumerate() {
        for (found, wanted) in o.iter().zip(&of_all[pair * row..]) {
            assert!((found - wanted).abs() < 1e-5, "{found} of 7 rows, {wanted} of 40");
        }
    }
    let other = sums(&call(6), Path::Fused).o;
    assert_ne!(other, sums(&call(5), Path::Fused).o);
}

/// o of the first rows of each head's, on the split path.
fn sums_of_few(engine: &Engine, few: &Attention, data: &CaseData) -> Vec<f64> {
    let rows = data.q.chunks(40 * 16).flat_map(|head| &head[..few.shape.seq_q as usize * 16]);
    let data = CaseData { q: rows.copied().collect(), ..data.clone() };
    let policy = Policy { path: Path::Split, ..Policy::default() };
    let plan = engine.plan_with(few, &policy).unwrap();
    engine.run_host(&plan, &data.inputs()).unwrap().o
}
