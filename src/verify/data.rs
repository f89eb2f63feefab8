//! Inputs for a case: deterministic, awkward where it matters, and the same on every machine.
//!
//! q and k are normal and scaled so that scale · q·k has the wanted standard deviation; v is uniform.
//! All three are values of the storage type. Whatever a kernel must not read holds NaN or ∞: the
//! gaps between strided rows, and if asked the rows of q past their length and the rows of k and v
//! that no query sees.

pub(super) mod draw;
mod tables;

use std::collections::HashSet;
use std::ops::Range;

use crate::feature::Operands;
use crate::feature::inner::Inner;
use crate::problem::{Operand, Problem};
use crate::tensor::{DType, Strides};
use draw::Draw;

/// How the entries of a length table are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lengths {
    /// By turns a part of the sequence, nothing, and all of it.
    #[default]
    Mixed,
    /// Nothing at all.
    Zero,
    /// A part, at least 1.
    Partial,
    /// The whole sequence.
    Full,
}

/// What the tensors of a case look like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DataOptions {
    /// Standard deviation of scale · q·k.
    pub logits: f64,
    /// Largest |v|.
    pub values: f64,
    /// Sinks are ± this, by turns.
    pub sinks: f64,
    /// Length tables.
    pub lengths: Lengths,
    /// NaN and ∞ in q, k and v wherever nothing may look.
    pub poison: bool,
    /// The largest finite values and −0 there instead: what an earlier use of the memory left.
    pub stale: bool,
    /// NaN and ∞ by turns in v of the key in the middle, which is seen by some rows and hidden from others.
    pub special: bool,
    /// A bias of −1e4 on that key, so that its weight rounds to 0; its v counts all the same.
    pub faint: bool,
    /// Scores of −∞ by data: −∞ in the first channel of k, of every key in even sequences and of every third one in odd
    /// ones, where that of q is 1. For products of q and k as they are.
    pub lost: bool,
    /// The lowest finite number as bias of every second key, in every second row of all.
    pub lowest_bias: bool,
    /// Segment ids from 2³¹ on.
    pub high_bits: bool,
    /// Blocks of −∞ in the bias.
    pub bias_blocks: bool,
    /// Share of the blocks that a block table visits.
    pub density: f64,
    /// Rotary angles stretched by YaRN, whose cosines and sines are longer than 1.
    pub yarn: bool,
}

impl DataOptions {
    /// What is usual: magnitudes of 1, and nothing special.
    pub const USUAL: Self = Self {
        logits: 1.0,
        values: 1.0,
        sinks: 1.0,
        lengths: Lengths::Mixed,
        poison: false,
        stale: false,
        special: false,
        faint: false,
        lost: false,
        lowest_bias: false,
        high_bits: false,
        bias_blocks: true,
        yarn: false,
        density: 0.5,
    };
}

impl Default for DataOptions {
    fn default() -> Self {
        Self::USUAL
    }
}

/// The tensors of a case on the CPU; those that the problem does not name are empty.
#[doc(inline)]
pub use crate::reference::OwnedInputs as CaseData;

impl CaseData {
    /// Draws the tensors of a problem; equal arguments give equal data.
    pub fn generate(problem: &Problem, seed: u64, options: &DataOptions) -> Self {
        let a = problem.attention();
        let s = a.shape;
        let mut draw = Draw::new(seed);
        let mut data = Self::tables(problem, &mut draw, options);

        // q·k of standard normals has deviation √dim_qk; the rest is shared between q and k.
        let spread = f64::from(problem.scale()).abs() * f64::from(s.dim_qk).sqrt();
        let product = a.inner == Inner::Product && spread > 0.0;
        let factor = if product { (options.logits / spread).sqrt() } else { 1.0 };
        let mut fill = |operand, heads, next: &dyn Fn(&mut Draw) -> f64| {
            let ((batch, seq), dim) = (problem.extent(operand), problem.dim(operand));
            let sizes = [batch, heads, seq, dim];
            let storage = problem.storage(operand);
            let n = sizes.map(u64::from).iter().product::<u64>();
            let drawn: Vec<f64> = (0..n).map(|_| next(&mut draw)).collect();
            let rows = drawn.chunks(dim.max(1) as usize);
            let values: Vec<f64> = rows.flat_map(|row| storage.round(row)).collect();
            let mut laid = scatter(&values, problem.strides(operand), sizes);
            // The scales of the last row.
            let units = problem.elements(operand).unwrap_or(0);
            laid.resize(units as usize, f64::NAN);
            laid
        };
        data.q = fill(Operand::Q, s.heads_q, &|d| factor * d.normal());
        data.k = fill(Operand::K, s.heads_kv, &|d| factor * d.normal());
        data.v = fill(Operand::V, s.heads_kv, &|d| options.values * d.signed());
        if (options.poison || options.stale) && !a.packs_keys() {
            data.poison(problem, options.stale);
        }
        if options.special && a.packed.is_none() && a.paged.is_none() && s.seq_kv > 0 {
            data.special(problem);
        }
        if options.faint {
            data.faint(problem);
        }
        if options.lowest_bias {
            data.lower(problem);
        }
        if options.lost {
            data.lose(problem);
        }
        data
    }

    /// Writes NaN and ∞ by turns, or the largest number and −0, into the rows of q, k and v that may not be
    /// read.
    fn poison(&mut self, problem: &Problem, stale: bool) {
        let s = problem.attention().shape;
        let seen = seen_keys(problem, &self.operands());
        let halves = [Operand::Q, Operand::K, Operand::V]
            .map(|operand| problem.storage(operand).dtype())
            .contains(&Some(DType::F16));
        let largest = if halves { 65504.0 } else { 3e38 };
        let turns = if stale { [largest, -0.0] } else { [f64::NAN, f64::INFINITY] };
        let spoil = |row: &mut [f64], i: u32| row.fill(turns[i as usize % 2]);
        let place = |operand, b, h, row| row_place(problem, operand, [b, h, row]);
        // Packed tensors have no rows between the sequences.
        let padded = if problem.attention().packed.is_some() { 0 } else { s.batch };
        for b in 0..padded {
            let (q_len, _) = problem.lengths(b, &self.operands());
            for (h, row) in (0..s.heads_q).flat_map(|h| (q_len..s.seq_q).map(move |r| (h, r))) {
                spoil(&mut self.q[place(Operand::Q, b, h, row)], row);
            }
        }
        let (blocks, size) = problem.extent(Operand::K);
        for (b, h) in (0..blocks).flat_map(|b| (0..s.heads_kv).map(move |h| (b, h))) {
            for key in (0..size).filter(|key| !seen.contains(&[b, h, *key])) {
                spoil(&mut self.k[place(Operand::K, b, h, key)], key);
                spoil(&mut self.v[place(Operand::V, b, h, key)], key + 1);
            }
        }
    }

    /// Writes NaN into v of the middle key, in every second sequence ∞.
    fn special(&mut self, problem: &Problem) {
        let s = problem.attention().shape;
        for (b, h) in (0..s.batch).flat_map(|b| (0..s.heads_kv).map(move |h| (b, h))) {
            let value = if b.is_multiple_of(2) { f64::NAN } else { f64::INFINITY };
            self.v[row_place(problem, Operand::V, [b, h, s.seq_kv / 2])].fill(value);
        }
    }

    /// Biases the middle key so that its weight rounds to 0.
    fn faint(&mut self, problem: &Problem) {
        let s = problem.attention().shape;
        let keys = problem.attention().bias.map_or(1, |shape| shape.0[3]).max(1) as usize;
        for row in self.bias.chunks_mut(keys) {
            row[(s.seq_kv / 2) as usize % keys] = -1e4;
        }
    }

    /// Biases keys as masks do that are made of the lowest finite number.
    fn lower(&mut self, problem: &Problem) {
        let keys = problem.attention().bias.map_or(1, |shape| shape.0[3]).max(1) as usize;
        for (row, biases) in self.bias.chunks_mut(keys).enumerate() {
            let step = if row.is_multiple_of(2) { 1 } else { 2 };
            biases.iter_mut().step_by(step).for_each(|bias| *bias = f64::from(f32::MIN));
        }
    }

    /// Writes −∞ into k so that scores are.
    fn lose(&mut self, problem: &Problem) {
        let s = problem.attention().shape;
        let place = |operand, b, h, row| row_place(problem, operand, [b, h, row]).start;
        for b in 0..s.batch {
            for (h, row) in (0..s.heads_q).flat_map(|h| (0..s.seq_q).map(move |row| (h, row))) {
                self.q[place(Operand::Q, b, h, row)] = 1.0;
            }
            let step = if b.is_multiple_of(2) { 1 } else { 3 };
            let keys = |h| (0..s.seq_kv).step_by(step).map(move |key| (h, key));
            for (h, key) in (0..s.heads_kv).flat_map(keys) {
                self.k[place(Operand::K, b, h, key)] = f64::NEG_INFINITY;
            }
        }
    }
}

/// Where a row of q, k or v is.
fn row_place(problem: &Problem, operand: Operand, [b, h, row]: [u32; 3]) -> Range<usize> {
    let start = problem.strides(operand).index(b.into(), h.into(), row.into()) as usize;
    start..start + problem.dim(operand) as usize
}

/// Lays `[batch, heads, seq, dim]` values out in strides; what lies between is NaN.
pub fn scatter(values: &[f64], strides: Strides, sizes: [u32; 4]) -> Vec<f64> {
    let [batch, heads, seq, dim] = sizes;
    let span = strides.span(batch.into(), heads.into(), seq.into(), dim.into()).unwrap_or(0);
    let mut laid = vec![f64::NAN; if sizes.contains(&0) { 0 } else { span as usize }];
    for (row, values) in values.chunks_exact(dim.max(1) as usize).enumerate() {
        let start = row_start(row, strides, sizes);
        laid[start..start + values.len()].copy_from_slice(values);
    }
    laid
}

/// The inverse of [`scatter`]: `[batch, heads, seq, dim]` values without gaps. Elements past the end
/// of `laid` are left out, so that a short result shows as a wrong length.
pub fn gather(laid: &[f64], strides: Strides, sizes: [u32; 4]) -> Vec<f64> {
    let [batch, heads, seq, dim] = sizes.map(|n| n as usize);
    let rows = (0..batch * heads * seq).map(|row| row_start(row, strides, sizes));
    rows.filter_map(|start| laid.get(start..start + dim)).flatten().copied().collect()
}

fn row_start(row: usize, strides: Strides, [_, heads, seq, _]: [u32; 4]) -> usize {
    let (row, heads, seq) = (row as u64, u64::from(heads), u64::from(seq));
    strides.index(row / (heads * seq), row / seq % heads, row % seq) as usize
}

/// Which (sequence or page, key head, place in it) at least one row attends to.
fn seen_keys(problem: &Problem, operands: &Operands<'_>) -> HashSet<[u32; 3]> {
    let s = problem.attention().shape;
    let size = problem.extent(Operand::K).1.max(1);
    let mut seen = HashSet::new();
    for (batch, head) in (0..s.batch).flat_map(|b| (0..s.heads_q).map(move |h| (b, h))) {
        for row in 0..s.seq_q {
            let mut at = problem.position(batch, head, row, operands);
            for key in problem.key_range(&at) {
                at.key = key;
                if problem.sees(&at, operands) {
                    let page = problem.page_of(batch, key, operands).unwrap_or(batch);
                    seen.insert([page, head / s.group(), key % size]);
                }
            }
        }
    }
    seen
}
