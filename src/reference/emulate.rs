//! The same computation in the precision of the kernels: what rounding alone does to a result.
//!
//! Inputs are taken as they are (already values of the storage type), products and sums are f32,
//! every step of the score chain is rounded to f32, and o is rounded to the storage type at the
//! end. The distance from [`Problem::reference`] is the error of an honest implementation. One
//! order of summation underestimates it, because errors cancel by luck; hence three:
//!
//! | order | dot product | softmax | weighted sum |
//! |---|---|---|---|
//! | [`Order::Forward`] | first to last | two passes | normalised weights, first key to last |
//! | [`Order::Reversed`] | last to first | two passes | divided by the sum at the end, last key first; no subnormals |
//! | [`Order::Blocked`] | four partial sums, fused multiply-add | running maximum over tiles, base 2 | rescaled per tile, divided at the end |
//! | [`Order::MATRIX`] | eights of f16 products, cut to f32 | two passes | weights in f16, eights of products, cut to f32 |
//!
//! The last is what matrix units do: operands are f16, a few products are summed exactly, and what is added to the f32
//! sum is cut off, not rounded (Fasi et al., "Numerical behavior of NVIDIA tensor cores", 2021). It counts only for
//! their paths.

use std::f32::consts::{LN_2, LOG2_E};

use crate::error::Result;
use crate::feature::Position;
use crate::feature::inner::Inner;
use crate::feature::normalize::Normalizer;
use crate::feature::score::Stage;
use crate::problem::Problem;
use crate::reference::call::{Call, Row};
use crate::reference::matrix::{self, Keyed};
use crate::reference::{Inputs, Outputs, over_rows};

/// The order in which an emulation adds, and the form of its softmax.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Order {
    /// As the formula is written: first to last, maximum first, weights normalised before use.
    Forward,
    /// Last to first, o divided by the sum of weights at the end. Weights and products below the smallest
    /// normal number are 0, as drivers may have it.
    Reversed,
    /// As a fused kernel does it: tiles of keys, a running maximum, exponentials in base 2.
    Blocked,
    /// As matrix units do it: operands and weights in f16, sums in f32.
    Matrix {
        /// What weights are relative to lags behind the row's peak by this many times 0.7: other bits are rounded away.
        lag: u8,
    },
}

impl Order {
    /// Every order of plain f32.
    pub const ALL: [Self; 3] = [Self::Forward, Self::Reversed, Self::Blocked];

    /// What counts on matrix units as well.
    pub const MATRIX: [Self; 3] =
        [Self::Matrix { lag: 0 }, Self::Matrix { lag: 2 }, Self::Matrix { lag: 5 }];
}

/// Keys per tile of [`Order::Blocked`].
const TILE: usize = 32;

/// Computes a problem in float32 and rounds o to the problem's storage type.
///
/// # Errors
/// An invalid-argument error that names the tensor whose length does not fit the problem.
pub fn emulate(problem: &Problem, inputs: &Inputs<'_>, order: Order) -> Result<Outputs> {
    let round = |x: f64| f64::from(x as f32);
    over_rows(problem, inputs, round, |call, batch, head, row| {
        emulate_row(call, problem.position(batch, head, row, call.operands), order)
    })
}

fn emulate_row(call: &Call<'_>, mut at: Position, order: Order) -> Row {
    let a = call.problem.attention();
    let q = call.q(&at);
    let product = |at: &Position| {
        let w = a.inner.weights(at.head, q.len(), call.operands);
        f64::from(inner(a.inner, q, call.k(at), w, order))
    };
    let round = |s: f64| f64::from(s as f32);
    let mut keys: Vec<Keyed> = Vec::new();
    for key in 0..a.shape.seq_kv {
        at.key = key;
        if call.sees(&at) {
            keys.push((key, call.score(product(&at), &at, Stage::Biased, round) as f32));
        }
    }
    if order == Order::Reversed {
        keys.reverse();
    }
    let sink = single_sink(call.sink(&at));
    let v = |key: u32| call.v(&Position { key, ..at });
    let dim_v = a.shape.dim_v as usize;
    if call.weighs() && !keys.is_empty() {
        let (o, lse) = placed(call, at, &mut keys, sink, order);
        let o = match order {
            Order::Matrix { lag } => matrix::sum(&keys, dim_v, matrix::ahead(lag), v),
            _ => o,
        };
        return finish(call, at, keys, o, lse, product, round);
    }
    let (o, lse) = match (keys.is_empty(), order) {
        (true, _) => (vec![0.0; dim_v], sink.unwrap_or(f32::NEG_INFINITY)),
        _ if a.normalizer != Normalizer::Softmax => {
            let lse = weigh(call, at, &mut keys);
            match order {
                Order::Matrix { .. } => (matrix::sum(&keys, dim_v, 1.0, v), lse),
                _ => (sum(&keys, dim_v, v, a.normalizer.takes_one(), order), lse),
            }
        }
        (_, Order::Forward | Order::Reversed) => two_pass(&mut keys, sink, dim_v, v, order),
        (_, Order::Blocked) => online(&mut keys, sink, dim_v, v),
        (_, Order::Matrix { lag }) => {
            matrix::softmax(&mut keys, sink, dim_v, matrix::ahead(lag), v)
        }
    };
    finish(call, at, keys, o, lse, product, round)
}

/// Rounds o, and shows the weights or scores that are asked for.
fn finish(
    call: &Call<'_>,
    at: Position,
    keys: Vec<Keyed>,
    o: Vec<f32>,
    lse: f32,
    product: impl Fn(&Position) -> f64,
    round: impl Fn(f64) -> f64,
) -> Row {
    let a = call.problem.attention();
    let mut weights = vec![0.0; a.shape.seq_kv as usize];
    for (key, weight) in keys {
        weights[key as usize] = f64::from(weight);
    }
    let weights = call.shown(at, weights, product, round);
    let scale = call.value_scale(&at) as f32;
    let o = o.into_iter().map(|x| a.dtype.round(f64::from(x * scale))).collect();
    Row { o, lse: f64::from(lse), weights }
}

/// Weights that are multiplied with the factors of their places: softmax or another normaliser in f32,
/// then the factor, then the sum.
fn placed(
    call: &Call<'_>,
    at: Position,
    keys: &mut [Keyed],
    sink: Option<f32>,
    order: Order,
) -> (Vec<f32>, f32) {
    let a = call.problem.attention();
    let seq_kv = a.shape.seq_kv as usize;
    let mut scores = vec![None; seq_kv];
    for (key, s) in keys.iter() {
        scores[*key as usize] = Some(f64::from(*s));
    }
    let mut weights = vec![0.0; seq_kv];
    let lse = a.normalizer.weights(&scores, &[], sink.map(f64::from), &mut weights);
    weights.iter_mut().for_each(|w| *w = f64::from(*w as f32));
    call.place(at, &mut weights);
    for (key, s) in keys.iter_mut() {
        *s = weights[*key as usize] as f32;
    }
    let v = |key: u32| call.v(&Position { key, ..at });
    (sum(keys, a.shape.dim_v as usize, v, false, order), lse as f32)
}

/// Scores become weights of a normaliser that is not softmax: its formula on the rounded scores, rounded.
/// Returns what stands in for the log-sum-exp.
fn weigh(call: &Call<'_>, at: Position, keys: &mut [Keyed]) -> f32 {
    let seq_kv = call.problem.attention().shape.seq_kv as usize;
    let mut scores = vec![None; seq_kv];
    for (key, s) in keys.iter() {
        scores[*key as usize] = Some(f64::from(*s));
    }
    call.forward_only(at, &mut scores, |s| f64::from(s as f32));
    let drawn = call.drawn(at, &scores);
    let mut weights = vec![0.0; seq_kv];
    let normalizer = call.problem.attention().normalizer;
    let lse = normalizer.weights(&scores, &drawn, None, &mut weights);
    for (key, s) in keys.iter_mut() {
        *s = weights[*key as usize] as f32;
    }
    lse as f32
}

/// What may become of a number under an order: one of them has no subnormal numbers.
pub(super) fn kept(x: f32, order: Order) -> f32 {
    if order == Order::Reversed && x.is_subnormal() { 0.0 } else { x }
}

/// The weighted sum of v in the order of `keys`; without those of weight 0 where one key takes all.
fn sum<'a>(
    keys: &[Keyed],
    dim_v: usize,
    v: impl Fn(u32) -> &'a [f64],
    one: bool,
    order: Order,
) -> Vec<f32> {
    let mut o = vec![0.0_f32; dim_v];
    for (key, weight) in keys.iter().filter(|(_, weight)| !one || *weight != 0.0) {
        for (sum, v) in o.iter_mut().zip(v(*key)) {
            *sum += kept(kept(*weight, order) * *v as f32, order);
        }
    }
    o
}

/// A sink in f32; one of −∞ is none.
fn single_sink(sink: Option<f64>) -> Option<f32> {
    sink.map(|sink| sink as f32).filter(|sink| *sink != f32::NEG_INFINITY)
}

/// Softmax of visible scores, in an order of plain f32; returns the log-sum-exp.
pub(super) fn softmax(
    scores: &[Option<f64>],
    sink: Option<f64>,
    order: Order,
    weights: &mut [f64],
) -> f64 {
    let seen = (0..).zip(scores).filter_map(|(key, s)| s.map(|s| (key, s as f32)));
    let mut keys: Vec<Keyed> = seen.collect();
    let sink = single_sink(sink);
    let (_, lse) = match order {
        Order::Blocked => online(&mut keys, sink, 0, |_| &[]),
        _ => {
            if order == Order::Reversed {
                keys.reverse();
            }
            two_pass(&mut keys, sink, 0, |_| &[], order)
        }
    };
    keys.into_iter().for_each(|(key, weight)| weights[key as usize] = f64::from(weight));
    f64::from(lse)
}

/// Maximum, then exponentials and their sum, then the weighted sum of v; scores become weights.
fn two_pass<'a>(
    keys: &mut [Keyed],
    sink: Option<f32>,
    dim_v: usize,
    v: impl Fn(u32) -> &'a [f64],
    order: Order,
) -> (Vec<f32>, f32) {
    let scores = keys.iter().map(|(_, s)| *s);
    let peak = scores.chain(sink).fold(f32::NEG_INFINITY, f32::max);
    for (_, s) in keys.iter_mut() {
        *s = kept((*s - peak).exp(), order);
    }
    let divide_last = order == Order::Reversed;
    let total: f32 = keys.iter().map(|(_, e)| *e).chain(sink.map(|z| (z - peak).exp())).sum();
    let mut o = vec![0.0_f32; dim_v];
    for (key, weight) in keys.iter_mut() {
        let factor = if divide_last { *weight } else { *weight / total };
        for (sum, v) in o.iter_mut().zip(v(*key)) {
            *sum += kept(factor * *v as f32, order);
        }
        *weight = kept(*weight / total, order);
    }
    if divide_last {
        o.iter_mut().for_each(|x| *x /= total);
    }
    (o, peak + total.ln())
}

/// One pass over tiles of keys with a running maximum and sum, in base 2 unless that takes a score past f32;
/// scores become weights.
fn online<'a>(
    keys: &mut [Keyed],
    sink: Option<f32>,
    dim_v: usize,
    v: impl Fn(u32) -> &'a [f64],
) -> (Vec<f32>, f32) {
    let mut o = vec![0.0_f32; dim_v];
    let past = |s: f32| s.is_finite() && (s * LOG2_E).is_infinite();
    let natural = keys.iter().map(|(_, s)| *s).chain(sink).any(past);
    let unit = if natural { 1.0 } else { LOG2_E };
    let power = |x: f32| if natural { x.exp() } else { x.exp2() };
    let mut peak = sink.map_or(f32::NEG_INFINITY, |z| z * unit);
    let mut total = if sink.is_some() { 1.0_f32 } else { 0.0 };
    for tile in keys.chunks_mut(TILE) {
        tile.iter_mut().for_each(|(_, s)| *s *= unit);
        let higher = tile.iter().map(|(_, s)| *s).fold(peak, f32::max);
        // Nothing summed yet: −∞ − −∞ must not turn the empty sum into NaN.
        let shrink = if peak == f32::NEG_INFINITY { 0.0 } else { power(peak - higher) };
        o.iter_mut().for_each(|x| *x *= shrink);
        let sum: f32 = tile.iter().map(|(_, s)| power(*s - higher)).sum();
        total = total.mul_add(shrink, sum);
        for (key, s) in tile.iter() {
            let weight = power(*s - higher);
            for (sum, v) in o.iter_mut().zip(v(*key)) {
                *sum = weight.mul_add(*v as f32, *sum);
            }
        }
        peak = higher;
    }
    for (_, s) in keys.iter_mut() {
        *s = power(*s - peak) / total;
    }
    o.iter_mut().for_each(|x| *x /= total);
    let lse = if natural { peak + total.ln() } else { (peak + total.log2()) * LN_2 };
    (o, lse)
}

/// The inner loop of a score, added in the given order.
pub(super) fn inner(inner: Inner, q: &[f64], k: &[f64], w: &[f64], order: Order) -> f32 {
    match inner {
        Inner::Product => dot(q.iter().zip(k).map(|(a, b)| (*a as f32, *b as f32)), order),
        Inner::Sum { activation, inner_scale, .. } => {
            let activate = |(q, k): (&f64, &f64)| {
                let x = inner_scale.get() * (*q as f32 + *k as f32);
                activation.apply(f64::from(x)) as f32
            };
            let w = w.iter().map(|w| *w as f32);
            let terms: Vec<(f32, f32)> = w.zip(q.iter().zip(k).map(activate)).collect();
            dot(terms.into_iter(), order)
        }
    }
}

pub(super) fn dot(terms: impl DoubleEndedIterator<Item = (f32, f32)>, order: Order) -> f32 {
    match order {
        Order::Forward => terms.fold(0.0, |sum, (a, b)| sum + a * b),
        Order::Reversed => terms.rev().fold(0.0, |sum, (a, b)| sum + a * b),
        Order::Blocked => {
            let mut lanes = [0.0_f32; 4];
            for (i, (a, b)) in terms.enumerate() {
                lanes[i % 4] = a.mul_add(b, lanes[i % 4]);
            }
            (lanes[0] + lanes[1]) + (lanes[2] + lanes[3])
        }
        Order::Matrix { .. } => matrix::dot(terms),
    }
}
