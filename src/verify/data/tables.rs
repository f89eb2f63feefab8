//! The tables of a case: lengths, factors, positions and places.

use super::draw::Draw;
use super::{CaseData, DataOptions, Lengths};
use crate::feature::rotary::{RotaryScaling, Yarn};
use crate::feature::score::Alibi;
use crate::problem::{Operand, Problem};
use crate::tensor::DType;

impl CaseData {
    /// Those that the call has. The order is that in which numbers are drawn.
    pub(super) fn tables(problem: &Problem, draw: &mut Draw, options: &DataOptions) -> Self {
        let mut data = Self::default();
        data.lengths(problem, draw, options);
        data.scales(problem, draw, options);
        data.directions(problem, draw, options);
        data.places(problem, draw, options);
        data.others(problem, draw);
        data
    }

    /// Where sequences start and end.
    fn lengths(&mut self, problem: &Problem, draw: &mut Draw, options: &DataOptions) {
        let a = problem.attention();
        let s = a.shape;
        if a.kv_lengths {
            self.kv_lengths = (0..s.batch).map(|b| draw.length(options, b, s.seq_kv)).collect();
        }
        if a.q_lengths {
            // Another turn than the key lengths, so that every combination meets.
            self.q_lengths = (0..s.batch).map(|b| draw.length(options, 2 * b, s.seq_q)).collect();
        }
        if let Some(packed) = a.packed {
            let full = options.lengths == Lengths::Full;
            self.cu_seqlens_q = starts(packed.total_q, s.batch, s.seq_q, (!full).then_some(1));
            if a.packs_keys() {
                self.cu_seqlens_kv =
                    starts(packed.total_kv, s.batch, s.seq_kv, (!full).then_some(2));
            }
        }
        if problem.needs_offsets() {
            self.offsets = (0..s.batch).map(|b| draw.offset(b, s.seq_q, s.seq_kv)).collect();
        }
    }

    /// What scores are multiplied with, added to and masked by.
    fn scales(&mut self, problem: &Problem, draw: &mut Draw, options: &DataOptions) {
        let a = problem.attention();
        let s = a.shape;
        if a.kv_scales.is_some() {
            let n = problem.elements(Operand::KScales).unwrap_or(0);
            let mut scales = || (0..n).map(|_| DType::F32.round(0.5 + draw.unit())).collect();
            (self.k_scales, self.v_scales) = (scales(), scales());
        }
        if a.alibi.is_some() {
            self.alibi_slopes =
                Alibi::standard_slopes(s.heads_q).into_iter().map(f64::from).collect();
        }
        if a.sinks {
            let sign = |h: u32| if h.is_multiple_of(2) { options.sinks } else { -options.sinks };
            self.sinks = (0..s.heads_q).map(|h| DType::F32.round(sign(h))).collect();
        }
        if let Some(shape) = a.masks.boolean_shape() {
            self.mask = draw.mask(shape.0);
        }
        if let Some(shape) = a.bias {
            self.bias = draw.bias(shape.0, options.bias_blocks, a.bias_dtype);
        }
        if a.inner.is_sum() {
            let weight = |_| DType::F32.round(draw.signed());
            let n = problem.elements(Operand::ScoreV).unwrap_or(0);
            self.score_v = (0..n).map(weight).collect();
        }
    }

    /// What turns rows and products of them, and tells how far they are from each other.
    fn directions(&mut self, problem: &Problem, draw: &mut Draw, options: &DataOptions) {
        let a = problem.attention();
        let s = a.shape;
        if let Some(rotary) = a.rotary {
            let scaling = match options.yarn {
                true => RotaryScaling::Yarn(Yarn::new(4.0, 32.0)),
                false => RotaryScaling::None,
            };
            // A validated call's channels are even, which is all that could be refused.
            let (cos, sin) = scaling.tables(rotary.dim, 1e4, rotary.table_rows).unwrap_or_default();
            self.rotary_cos = cos.into_iter().map(f64::from).collect();
            self.rotary_sin = sin.into_iter().map(f64::from).collect();
            let mut ids = |operand| -> Vec<u32> {
                let n = problem.elements(operand).unwrap_or(0);
                (0..n).map(|_| (draw.unit() * f64::from(rotary.table_rows)) as u32).collect()
            };
            self.positions = ids(Operand::Positions);
            self.key_positions = ids(Operand::KeyPositions);
        }
        if a.cosine.is_some_and(|cosine| cosine.head_scale) {
            self.head_scale = (0..s.heads_q).map(|_| DType::F32.round(8.0 * draw.unit())).collect();
        }
        if let Some(dim_q) = a.general {
            let n = dim_q * s.dim_qk;
            let size = 1.0 / f64::from(s.dim_qk).sqrt();
            self.score_matrix = (0..n).map(|_| DType::F32.round(size * draw.normal())).collect();
        }
        if a.relative.is_some() {
            self.normal(Operand::Relative, problem, draw);
        }
    }

    /// Where keys are, and who sees whom by place.
    fn places(&mut self, problem: &Problem, draw: &mut Draw, options: &DataOptions) {
        let a = problem.attention();
        let s = a.shape;
        if a.masks.local.is_some() {
            // On halves and quarters, so that no key lies within rounding of the reach.
            let center = |_| (draw.unit() * f64::from(s.seq_kv) * 4.0).floor() / 4.0;
            self.centers = (0..s.batch * s.seq_q).map(center).collect();
        }
        if let Some(edges) = a.masks.edges {
            (self.edge_starts, self.edge_keys) = draw.edges(edges.count, s.seq_q, s.seq_kv);
            if edges.bias {
                self.normal(Operand::EdgeBias, problem, draw);
            }
        }
        if let Some(paged) = a.paged {
            self.page_table = draw.pages(&paged, &self.kv_lengths);
        }
        if a.masks.segments.is_some() {
            self.segments_q = draw.segments(s.batch, s.seq_q);
            self.segments_kv = draw.segments(s.batch, s.seq_kv);
            let high = if options.high_bits { 1 << 31 } else { 0 };
            self.segments_q.iter_mut().chain(&mut self.segments_kv).for_each(|id| *id |= high);
        }
        if let Some(tree) = a.masks.tree {
            let trees = if tree.shared { 1 } else { s.batch };
            self.parents = draw.parents(trees, s.seq_q);
        }
        if let Some(blocks) = a.masks.blocks {
            self.blocks = draw.blocks(&blocks, a, options.density);
        }
    }

    /// Normal numbers for each table of real numbers that nothing else has been said of.
    fn others(&mut self, problem: &Problem, draw: &mut Draw) {
        for (operand, elements) in problem.operands() {
            let missing = self.operands().elements(operand) == Some(0) && elements > 0;
            if operand.is_table() && missing {
                self.normal(operand, problem, draw);
            }
        }
    }

    /// Normal numbers for a tensor; none where its elements are no real numbers.
    fn normal(&mut self, operand: Operand, problem: &Problem, draw: &mut Draw) {
        let n = problem.elements(operand).unwrap_or(0);
        if let Some(values) = self.floats_mut(operand) {
            *values = (0..n).map(|_| DType::F32.round(draw.normal())).collect();
        }
    }
}

/// Starts of `batch` packed sequences of very different lengths, some of them empty, or (without `turn`) of equal
/// ones, within `total` rows and `longest`.
fn starts(total: u32, batch: u32, longest: u32, turn: Option<u32>) -> Vec<u32> {
    let mut at = 0;
    let mut starts = vec![0];
    for b in 0..batch {
        let length = match turn.map(|turn| (b + turn) % 4) {
            None => total / batch.max(1),
            Some(0) => 0,
            Some(1) => longest,
            Some(2) => 1,
            Some(_) => longest / 2 + 1,
        };
        at = total.min(at + length.min(longest));
        starts.push(at);
    }
    starts
}
