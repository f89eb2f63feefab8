//! One call as its rows see it: where q, k and v lie, which keys are visible, what scores become.

use crate::feature::mask::Mask;
use crate::feature::normalize::Normalizer;
use crate::feature::normalize::monotonic::step;
use crate::feature::score::{Score, Stage};
use crate::feature::{Entry, Operands, Position};
use crate::problem::{Operand, Problem, WeightsAt};
use crate::reference::Inputs;
use crate::tensor::Layout;

/// What one query row yields: o `[dim_v]`, its lse, and scores or weights `[seq_kv]` if asked for.
pub(super) struct Row {
    pub(super) o: Vec<f64>,
    pub(super) lse: f64,
    pub(super) weights: Vec<f64>,
}

/// A problem with its tensors, and its features unpacked once per thread.
pub(super) struct Call<'a> {
    pub(super) problem: &'a Problem,
    pub(super) operands: &'a Operands<'a>,
    inputs: &'a Inputs<'a>,
    prepared: &'a [Option<Vec<f64>>; 2],
    scores: Vec<Box<dyn Score>>,
    masks: Vec<&'a dyn Mask>,
}

impl<'a> Call<'a> {
    pub(super) fn new(
        problem: &'a Problem,
        inputs: &'a Inputs<'a>,
        prepared: &'a [Option<Vec<f64>>; 2],
    ) -> Self {
        let (scores, masks) = (problem.scores(), problem.masks());
        Self { problem, operands: &inputs.operands, inputs, prepared, scores, masks }
    }

    /// The row of q at a position, `[dim_qk]`.
    pub(super) fn q(&self, at: &Position) -> &'a [f64] {
        match &self.prepared[0] {
            Some(values) => self.prepared_row(values, Operand::Q, at, [at.head, at.row]),
            None => self.row(Operand::Q, self.inputs.q, at, [at.head, at.row], self.dims().0),
        }
    }

    /// The row of k at a position's key, `[dim_qk]`.
    pub(super) fn k(&self, at: &Position) -> &'a [f64] {
        let place = [self.head_kv(at), at.key];
        match &self.prepared[1] {
            Some(values) => self.prepared_row(values, Operand::K, at, place),
            None => self.row(Operand::K, self.inputs.k, at, place, self.dims().0),
        }
    }

    /// The row of v at a position's key, `[dim_v]`.
    pub(super) fn v(&self, at: &Position) -> &'a [f64] {
        self.row(Operand::V, self.inputs.v, at, [self.head_kv(at), at.key], self.dims().1)
    }

    /// The sink that joins a row's sum: none in rows past the query length.
    pub(super) fn sink(&self, at: &Position) -> Option<f64> {
        let here = self.problem.attention().sinks && at.row < at.q_len;
        here.then(|| self.operands.sinks[at.head as usize])
    }

    /// Whether the row at a position may attend to the key.
    pub(super) fn sees(&self, at: &Position) -> bool {
        self.problem.sees_by(&self.masks, at, self.operands)
    }

    /// The product q·k after the modifiers up to `last`, each rounded by `round`.
    pub(super) fn score(
        &self,
        product: f64,
        at: &Position,
        last: Stage,
        round: impl Fn(f64) -> f64,
    ) -> f64 {
        let chain = self.scores.iter().filter(|score| score.stage() <= last);
        chain.fold(product, |s, score| round(score.apply(s, at, self.operands)))
    }

    /// What o is multiplied with because v is stored divided by it.
    pub(super) fn value_scale(&self, at: &Position) -> f64 {
        let a = self.problem.attention();
        a.kv_scales.map_or(1.0, |scales| scales.of(self.operands.v_scales, at.head, &a.shape))
    }

    /// What the weight of a visible key is multiplied with.
    pub(super) fn factor(&self, at: &Position) -> f64 {
        let shape = &self.problem.attention().shape;
        let factors = self.masks.iter().map(|mask| mask.factor(at, self.operands, shape));
        factors.product::<f64>() * self.kept(at)
    }

    /// The dropout's part of it.
    fn kept(&self, at: &Position) -> f64 {
        let a = self.problem.attention();
        a.dropout.map_or(1.0, |dropout| dropout.factor(at, a.shape.heads_q))
    }

    /// Whether weights are multiplied with a factor.
    pub(super) fn weighs(&self) -> bool {
        self.problem.attention().dropout.is_some() || self.masks.iter().any(|mask| mask.weighs())
    }

    /// Multiplies the weights of visible keys with the factors of their places.
    pub(super) fn place(&self, mut at: Position, weights: &mut [f64]) {
        if !self.weighs() {
            return;
        }
        for (key, weight) in (0..).zip(weights).filter(|(_, weight)| **weight != 0.0) {
            at.key = key;
            *weight *= self.factor(&at);
        }
    }

    /// The modifiers of a product in order, each with the score that it is given.
    pub(super) fn stages(&self, product: f64, at: &Position) -> Vec<(&dyn Score, f64)> {
        let mut stages: Vec<(&dyn Score, f64)> = Vec::new();
        let mut s = product;
        for score in self.scores.iter().filter(|score| score.stage() <= Stage::Biased) {
            stages.push((&**score, s));
            s = score.apply(s, at, self.operands);
        }
        stages
    }

    /// The elements that the factor takes in. One mask has a factor at most.
    pub(super) fn factor_entries(&self, at: &Position) -> Vec<Entry> {
        let shape = &self.problem.attention().shape;
        let entry = |mask: &&dyn Mask| mask.factor_entry(at, self.operands, shape);
        let kept = self.kept(at);
        let all = self.masks.iter().filter_map(entry);
        all.map(|entry| Entry { factor: entry.factor * kept, ..entry }).collect()
    }

    /// Monotonic attention: hides the keys before the one that the rows before have come to.
    pub(super) fn forward_only(
        &self,
        at: Position,
        scores: &mut [Option<f64>],
        round: impl Fn(f64) -> f64 + Copy,
    ) {
        let a = self.problem.attention();
        if a.normalizer != Normalizer::Monotonic {
            return;
        }
        let mut place = 0;
        for row in 0..at.row {
            let before = Position { row, key: 0, ..at };
            let q = self.q(&before);
            let score = |key: u32| {
                let at = Position { key, ..before };
                let inner = || round(a.inner.score(at.head, q, self.k(&at), self.operands));
                self.sees(&at).then(|| self.score(inner(), &at, Stage::Biased, round))
            };
            let row_scores: Vec<Option<f64>> = (0..a.shape.seq_kv).map(score).collect();
            place = step(&row_scores, place).unwrap_or(place);
        }
        scores[..place].fill(None);
    }

    /// Visible scores with the noise of a draw; empty where nothing is drawn.
    pub(super) fn drawn(&self, mut at: Position, scores: &[Option<f64>]) -> Vec<Option<f64>> {
        let Some(noise) = self.scores.iter().find(|score| score.stage() == Stage::Drawn) else {
            return Vec::new();
        };
        let draw = |(key, score): (u32, &Option<f64>)| {
            at.key = key;
            score.map(|s| noise.apply(s, &at, self.operands))
        };
        (0..).zip(scores).map(draw).collect()
    }

    /// The scores that the problem asks to see, `[seq_kv]`, or `weights` when it asks for those.
    pub(super) fn shown(
        &self,
        mut at: Position,
        weights: Vec<f64>,
        product: impl Fn(&Position) -> f64,
        round: impl Fn(f64) -> f64,
    ) -> Vec<f64> {
        let stage = match self.problem.attention().weights {
            None => return Vec::new(),
            Some(WeightsAt::Probabilities) => return weights,
            Some(WeightsAt::RawScores) => Stage::Scaled,
            Some(WeightsAt::AfterSoftcap) => Stage::Capped,
            Some(WeightsAt::AfterBias) => Stage::Biased,
        };
        let paged = self.problem.attention().paged;
        let (rows, keys) = self.problem.held(at.batch, self.operands);
        let mut score = |key| {
            at.key = key;
            let there = paged.is_none()
                || at.key < at.kv_len
                    && self.problem.page_of(at.batch, at.key, self.operands).is_some();
            let held = there && at.row < rows && at.key < keys;
            if !held || stage == Stage::Biased && !self.sees(&at) {
                return f64::NEG_INFINITY;
            }
            self.score(product(&at), &at, stage, &round)
        };
        (0..self.problem.attention().shape.seq_kv).map(&mut score).collect()
    }

    /// A row of a prepared copy.
    fn prepared_row(
        &self,
        values: &'a [f64],
        operand: Operand,
        at: &Position,
        [head, row]: [u32; 2],
    ) -> &'a [f64] {
        let (problem, dim) = (self.problem, self.dims().0);
        let strides = Layout::Bhsd.strides(problem.heads(operand), problem.seq(operand), dim);
        let start = strides.index(at.batch.into(), head.into(), row.into()) as usize;
        &values[start..start + dim as usize]
    }

    /// A row of `values`; empty where a packed tensor does not hold it.
    fn row(
        &self,
        operand: Operand,
        values: &'a [f64],
        at: &Position,
        [head, row]: [u32; 2],
        dim: u32,
    ) -> &'a [f64] {
        let start = self.problem.index(operand, [at.batch, head, row], self.operands) as usize;
        values.get(start..start + dim as usize).unwrap_or_default()
    }

    fn head_kv(&self, at: &Position) -> u32 {
        at.head / self.problem.attention().shape.group()
    }

    fn dims(&self) -> (u32, u32) {
        let shape = self.problem.attention().shape;
        (shape.dim_qk, shape.dim_v)
    }
}
