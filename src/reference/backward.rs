//! The gradients of attention as they are defined, in float64, one row at a time.
//!
//! ```text
//! for each (batch, head, row), with s, p and o as in the oracle:
//!     d_v[j]  += w[j] · d_o                        w = p, times the factor of the place where there is one
//!     d_w[j]   = ⟨d_o, v[j]⟩ + d_weights[j]
//!     d_s      = the normaliser's derivative of d_p (softmax: p ∘ (d_p − Σ p d_p + d_lse))
//!     d_x      = d_s through the chain of modifiers, last first; each adds to its tensor's gradient
//!     d_q, d_k += d_x through the inner score (product: d_x k[j], d_x q)
//! d_q, d_k through what happened to q and k before they met
//! ```
//! Only visible pairs are looked at, so nothing of a masked one passes on. A row that sees no key passes nothing
//! on, not even to its sink. Work is shared out by (batch, head of k and v), and each share goes through its
//! query heads and rows in order, so the sums do not depend on the machine.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::feature::score::Stage;
use crate::feature::{Entry, Position};
use crate::problem::{BackwardProblem, Operand};
use crate::reference::arithmetic::{Arithmetic, Row};
use crate::reference::call::Call;
use crate::reference::each::each;
use crate::reference::emulate;
use crate::reference::prepare::prepare_backward;
use crate::reference::{Inputs, Order, length, prepare, reserve};

/// The gradients that come from what follows the call, without gaps as [`Outputs`](super::Outputs) are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Incoming<'a> {
    /// Of o, `[batch, heads_q, seq_q, dim_v]`.
    pub o: &'a [f64],
    /// Of lse, `[batch, heads_q, seq_q]`; empty unless the problem takes one.
    pub lse: &'a [f64],
    /// Of the returned weights, `[batch, heads_q, seq_q, seq_kv]`; empty unless the problem takes one.
    pub weights: &'a [f64],
}

/// Gradients by their tensor: those of q, k and v `[batch, heads, seq, dim]` without gaps, the others as their
/// tensors are.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Gradients(BTreeMap<Operand, Vec<f64>>);

impl Gradients {
    /// The gradient of a tensor; `None` where it was not wanted.
    pub fn get(&self, operand: Operand) -> Option<&[f64]> {
        self.0.get(&operand).map(Vec::as_slice)
    }

    /// Puts the gradient of a tensor in the place of what was there.
    pub fn insert(&mut self, operand: Operand, values: Vec<f64>) {
        self.0.insert(operand, values);
    }

    /// All of them times a factor.
    pub(crate) fn scaled(&self, factor: f64) -> Self {
        let times = |values: &Vec<f64>| values.iter().map(|x| x * factor).collect();
        Self(self.0.iter().map(|(operand, values)| (*operand, times(values))).collect())
    }

    /// Whether every element has the same bits, any two NaN being the same.
    pub fn same_bits(&self, other: &Self) -> bool {
        let same = |a: &f64, b: &f64| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
        let equal =
            |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b));
        self.0.len() == other.0.len()
            && self.0.iter().all(|(operand, values)| {
                other.get(*operand).is_some_and(|others| equal(values, others))
            })
    }

    /// All of them, in the order of [`Operand`].
    pub fn iter(&self) -> impl Iterator<Item = (Operand, &[f64])> {
        self.0.iter().map(|(operand, values)| (*operand, values.as_slice()))
    }
}

impl BackwardProblem {
    /// Computes the gradients that are wanted in float64, on the CPU, in the shapes of [`Gradients`].
    ///
    /// ```
    /// use heedful::reference::{Incoming, Inputs};
    /// use heedful::{Attention, Backward, Operand, Shape};
    /// let problem = Backward::of(Attention::new(Shape::self_attention(1, 1, 2, 1))).validate()?;
    /// let (q, k, v) = ([0.0, 0.0], [1.0, 2.0], [3.0, 5.0]);
    /// let inputs = Inputs { q: &q, k: &k, v: &v, operands: Default::default() };
    /// let gradients = problem.reference(&inputs, &Incoming { o: &[1.0, 0.0], ..Default::default() })?;
    /// assert_eq!(gradients.get(Operand::V), Some(&[0.5, 0.5][..]));
    /// assert_eq!(gradients.get(Operand::Q), Some(&[0.5, 0.0][..]));
    /// # Ok::<(), heedful::Error>(())
    /// ```
    ///
    /// # Errors
    /// An invalid-argument error that names the tensor whose length does not fit the problem.
    pub fn reference(&self, inputs: &Inputs<'_>, incoming: &Incoming<'_>) -> Result<Gradients> {
        computed(self, inputs, incoming, Arithmetic::Exact)
    }
}

/// Computes gradients in float32, sums added in the given order (heads, rows and keys ascending, or all descending),
/// and rounds them to their storage type: the distance from [`BackwardProblem::reference`] is what rounding alone does.
/// Normalisers other than softmax are float64's, rounded. Gradients use no matrix units: [`Order::MATRIX`] is for
/// outputs.
///
/// # Errors
/// As [`BackwardProblem::reference`].
pub fn emulate_backward(
    backward: &BackwardProblem,
    inputs: &Inputs<'_>,
    incoming: &Incoming<'_>,
    order: Order,
) -> Result<Gradients> {
    computed(backward, inputs, incoming, Arithmetic::Single(order))
}

/// For each element of a gradient Σ |term| over what it sums, each term as many times as float32's ε its weight may be
/// off. Terms cancel, and what was rounded in them does not: a key that is alone in its row has Σ p d_p = d_p, so its
/// d_s is 0, or anything that is left of their rounding.
///
/// # Errors
/// As [`BackwardProblem::reference`].
pub fn backward_magnitudes(
    backward: &BackwardProblem,
    inputs: &Inputs<'_>,
    incoming: &Incoming<'_>,
) -> Result<Gradients> {
    computed(backward, inputs, incoming, Arithmetic::Bound)
}

fn computed(
    backward: &BackwardProblem,
    inputs: &Inputs<'_>,
    incoming: &Incoming<'_>,
    how: Arithmetic,
) -> Result<Gradients> {
    let problem = backward.problem();
    inputs.validate(problem)?;
    incoming.validate(backward)?;
    let s = problem.attention().shape;
    let prepared = [Operand::Q, Operand::K].map(|x| prepare(problem, inputs, x, |x| how.round(x)));
    let jobs = u64::from(s.batch) * u64::from(s.heads_kv);
    let call = || Call::new(problem, inputs, &prepared);
    let parts = each(0..jobs, call, |call, job| {
        let heads_kv = u64::from(s.heads_kv);
        let mut part = Part::new(backward, incoming, how);
        part.heads(call, (job / heads_kv) as u32, (job % heads_kv) as u32);
        part
    });
    gathered(backward, inputs, parts, how)
}

impl Incoming<'_> {
    pub(crate) fn validate(&self, backward: &BackwardProblem) -> Result<()> {
        let s = backward.problem().attention().shape;
        let rows = s.rows();
        let on = |on: bool, n: u64| if on { n } else { 0 };
        let asked = backward.backward();
        let lengths = [
            ("gradient of o", self.o.len(), rows * u64::from(s.dim_v)),
            ("gradient of lse", self.lse.len(), on(asked.from_lse, rows)),
            (
                "gradient of weights",
                self.weights.len(),
                on(asked.from_weights, rows * u64::from(s.seq_kv)),
            ),
        ];
        for (name, found, wanted) in lengths {
            if found as u64 != wanted {
                return Err(Error::invalid(name, length(found as u64), length(wanted)));
            }
        }
        Ok(())
    }
}

/// What the rows of one sequence and one head of k and v make of all gradients.
struct Part<'a> {
    backward: &'a BackwardProblem,
    incoming: &'a Incoming<'a>,
    how: Arithmetic,
    /// `[group, seq_q, dim_qk]`, of q as it meets k.
    d_q: Vec<f64>,
    /// `[seq_kv, dim_qk]`, of k as it meets q.
    d_k: Vec<f64>,
    /// `[seq_kv, dim_v]`.
    d_v: Vec<f64>,
    /// Weights of an additive score.
    d_w: Vec<f64>,
    /// Elements of other tensors, in the order in which they came.
    entries: Vec<Entry>,
}

impl<'a> Part<'a> {
    fn new(backward: &'a BackwardProblem, incoming: &'a Incoming<'a>, how: Arithmetic) -> Self {
        let s = backward.problem().attention().shape;
        let [group, rows, keys, dim, dim_v] =
            [s.group(), s.seq_q, s.seq_kv, s.dim_qk, s.dim_v].map(|n| n as usize);
        let w = backward.problem().elements(Operand::ScoreV).unwrap_or(dim as u64);
        Self {
            backward,
            incoming,
            how,
            d_q: vec![0.0; group * rows * dim],
            d_k: vec![0.0; keys * dim],
            d_v: vec![0.0; keys * dim_v],
            d_w: vec![0.0; w as usize],
            entries: Vec::new(),
        }
    }

    fn heads(&mut self, call: &Call<'_>, batch: u32, head_kv: u32) {
        let s = call.problem.attention().shape;
        let heads = head_kv * s.group()..(head_kv + 1) * s.group();
        for head in self.how.ordered(heads.collect()) {
            for row in self.how.ordered((0..s.seq_q).collect()) {
                self.row(call, call.problem.position(batch, head, row, call.operands));
            }
        }
    }

    fn row(&mut self, call: &Call<'_>, mut at: Position) {
        let a = call.problem.attention();
        let (s, how) = (a.shape, self.how);
        let q = call.q(&at);
        let mut product = |key: u32| {
            at.key = key;
            let w = a.inner.weights(at.head, q.len(), call.operands);
            let product = || match how {
                Arithmetic::Single(order) => {
                    f64::from(emulate::inner(a.inner, q, call.k(&at), w, order))
                }
                _ => a.inner.score(at.head, q, call.k(&at), call.operands),
            };
            call.sees(&at).then(product)
        };
        let products: Vec<Option<f64>> = (0..s.seq_kv).map(&mut product).collect();
        if products.iter().all(Option::is_none) {
            return;
        }
        let at_key = |key: usize| Position { key: key as u32, ..at };
        let score = |(key, x): (usize, &Option<f64>)| {
            x.map(|x| call.score(x, &at_key(key), Stage::Biased, |x| how.round(x)))
        };
        let scores: Vec<Option<f64>> = products.iter().enumerate().map(score).collect();
        let mut weights = vec![0.0; scores.len()];
        let sink = call.sink(&at);
        let lse = how.weights(a.normalizer, &scores, sink, &mut weights);

        let index = (at.batch as usize * s.heads_q as usize + at.head as usize) * s.seq_q as usize
            + at.row as usize;
        let d_weights = &self.values(call, at, index, &scores, &weights, lse);
        let d_lse = self.incoming.lse.get(index).copied().unwrap_or(0.0);
        let row = Row { scores: &scores, weights: &weights, d_weights, lse, d_lse };
        let (d_scores, d_sink) = how.normalized(a.normalizer, &row, sink);
        if sink.is_some() {
            self.add(Entry { operand: Operand::Sinks, index: at.head as usize, factor: d_sink });
        }
        for (key, product) in how.ordered(products.iter().enumerate().collect()) {
            if let Some(product) = product {
                self.pair(call, &at_key(key), *product, d_scores[key]);
            }
        }
    }

    /// The gradients of v and of the places' factors; returns those of the row's weights before the factors.
    fn values(
        &mut self,
        call: &Call<'_>,
        mut at: Position,
        index: usize,
        scores: &[Option<f64>],
        weights: &[f64],
        lse: f64,
    ) -> Vec<f64> {
        let s = call.problem.attention().shape;
        let how = self.how;
        let units = how.units(lse);
        let dim = s.dim_v as usize;
        let d_o = &self.incoming.o[index * dim..(index + 1) * dim];
        let mut d_weights = vec![0.0; weights.len()];
        for key in (0..weights.len()).filter(|key| scores[*key].is_some()) {
            at.key = key as u32;
            let v = call.v(&at);
            let factor = call.factor(&at);
            let returned = self.incoming.weights.get(index * s.seq_kv as usize + key);
            let returned = how.sized(returned.copied().unwrap_or(0.0));
            let d_weight = how.round(how.dot(d_o, v) + returned);
            let weight = how.round(weights[key] * factor) * units;
            for (sum, d) in self.d_v[key * dim..].iter_mut().zip(d_o) {
                how.add(sum, weight, *d);
            }
            for entry in call.factor_entries(&at) {
                let factor = how.sized(entry.factor) * weights[key] * units * d_weight;
                self.add(Entry { factor, ..entry });
            }
            d_weights[key] = how.round(d_weight * factor);
        }
        d_weights
    }

    /// What the gradient of a score makes of those of q, k and whatever the score was made with.
    fn pair(&mut self, call: &Call<'_>, at: &Position, product: f64, d_score: f64) {
        let a = call.problem.attention();
        let how = self.how;
        let mut d = d_score;
        for (score, before) in call.stages(product, at).into_iter().rev() {
            if let Some(entry) = score.entry(at, call.operands) {
                self.add(Entry { factor: how.sized(entry.factor * d), ..entry });
            }
            d = how.round(how.sized(d * score.derivative(before, at, call.operands)));
        }
        let (q, k) = (call.q(at), call.k(at));
        let w = a.inner.weights(at.head, q.len(), call.operands);
        let dim = q.len();
        let row = (at.head % a.shape.group() * a.shape.seq_q + at.row) as usize * dim;
        let own = if self.d_w.len() > dim { at.head as usize * dim } else { 0 };
        let d_q = &mut self.d_q[row..row + dim];
        let d_k = &mut self.d_k[at.key as usize * dim..][..dim];
        let into = [d_q, d_k, &mut self.d_w[own..own + dim]];
        a.inner.backward(d, [q, k, w], into, |sum, a, b| how.add(sum, a, b));
    }

    fn add(&mut self, entry: Entry) {
        if self.backward.wants(entry.operand) {
            self.entries.push(entry);
        }
    }
}

/// The gradients that are wanted, out of those of each share.
fn gathered(
    backward: &BackwardProblem,
    inputs: &Inputs<'_>,
    parts: Vec<Part<'_>>,
    how: Arithmetic,
) -> Result<Gradients> {
    let problem = backward.problem();
    let s = problem.attention().shape;
    let mut rows = [Vec::new(), Vec::new(), Vec::new()];
    let sizes = [
        s.rows() * u64::from(s.dim_qk),
        u64::from(s.batch) * u64::from(s.heads_kv) * u64::from(s.seq_kv) * u64::from(s.dim_qk),
        u64::from(s.batch) * u64::from(s.heads_kv) * u64::from(s.seq_kv) * u64::from(s.dim_v),
    ];
    for ((name, size), rows) in
        ["gradient of q", "gradient of k", "gradient of v"].into_iter().zip(sizes).zip(&mut rows)
    {
        *rows = reserve(name, size)?;
    }
    let [mut d_q, mut d_k, mut d_v] = rows;
    let mut others = BTreeMap::new();
    for &operand in backward.wanted().iter().filter(|x| x.rows().is_none()) {
        let mut values = reserve(operand.name(), problem.elements(operand).unwrap_or(0))?;
        values.resize(problem.elements(operand).unwrap_or(0) as usize, 0.0);
        others.insert(operand, values);
    }
    for part in &parts {
        d_q.extend_from_slice(&part.d_q);
        d_k.extend_from_slice(&part.d_k);
        d_v.extend_from_slice(&part.d_v);
    }
    let mut add = |Entry { operand, index, factor }: Entry| {
        others.entry(operand).and_modify(|values| how.add(&mut values[index], factor, 1.0));
    };
    for part in how.ordered(parts) {
        part.entries.into_iter().for_each(&mut add);
        let of_w = |(index, factor)| Entry { operand: Operand::ScoreV, index, factor };
        part.d_w.into_iter().enumerate().map(of_w).for_each(&mut add);
    }
    for (operand, gradient) in [(Operand::Q, &mut d_q), (Operand::K, &mut d_k)] {
        let entries = prepare_backward(problem, inputs, operand, gradient, how);
        how.ordered(entries).into_iter().for_each(&mut add);
    }
    let rows = [(Operand::Q, d_q), (Operand::K, d_k), (Operand::V, d_v)];
    others.extend(rows.into_iter().filter(|(operand, _)| backward.wants(*operand)));
    for (operand, values) in &mut others {
        how.stored(values, *operand, Some(backward.gradient_dtype(*operand)));
    }
    Ok(Gradients(others))
}
