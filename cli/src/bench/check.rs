//! What a workload's result is compared with before it is timed.

use std::cell::OnceCell;

use heedful::feature::mask::{Causal, Masks, Window};
use heedful::reference::Inputs;
use heedful::verify::compare::{Comparison, Tolerance, compare};
use heedful::verify::data::CaseData;
use heedful::verify::golden::{Loaded, Role};
use heedful::verify::truth::Truth;
use heedful::{Align, Attention, Operand, Path, Problem, Shape};

use crate::Outcome;

/// Above this much work the reference checks the last rows only.
const CHECKED_FLOP: u64 = 4_000_000_000;
/// Rows of the last head that are checked then.
const CHECKED_ROWS: u32 = 64;

/// What o is compared with: all of it, or the last rows of its last head.
pub(crate) struct Checked<'a> {
    problem: Problem,
    inputs: Inputs<'a>,
    sampled: bool,
    /// Plain, and for matrix units, which round operands and weights to f16: each when a path first asks for it.
    truths: [OnceCell<Truth>; 2],
}

impl<'a> Checked<'a> {
    pub(crate) fn new(problem: &Problem, data: &'a CaseData) -> Outcome<Self> {
        let large = problem.flops(&data.operands()) > CHECKED_FLOP;
        if large && is_plain(problem) {
            return Self::sample(problem.attention(), data);
        }
        let (problem, inputs) = (problem.clone(), data.inputs());
        Ok(Self { problem, inputs, sampled: false, truths: Default::default() })
    }

    /// The last rows of the last query head as a problem of their own: later rows shift the diagonal.
    fn sample(attention: &Attention, data: &'a CaseData) -> Outcome<Self> {
        let s = attention.shape;
        let rows = s.seq_q.min(CHECKED_ROWS);
        let shift = (s.seq_q - rows) as i32;
        let shape = Shape { batch: 1, heads_q: 1, heads_kv: 1, seq_q: rows, ..s };
        let mut part = Attention { shape, lse: false, ..attention.clone() };
        let align = Align::Offset(shift);
        part.masks.causal = attention.masks.causal.map(|_| Causal { align });
        part.masks.window = attention.masks.window.map(|window| Window { align, ..window });
        let tail = |values: &'a [f64], n: u32, dim: u32| {
            &values[values.len() - n as usize * dim as usize..]
        };
        let q = tail(&data.q, rows, s.dim_qk);
        let (k, v) = (tail(&data.k, s.seq_kv, s.dim_qk), tail(&data.v, s.seq_kv, s.dim_v));
        let inputs = Inputs { q, k, v, operands: Default::default() };
        let problem = part.validate()?;
        Ok(Self { problem, inputs, sampled: true, truths: Default::default() })
    }

    pub(crate) fn judge(&self, path: Path, o: &[f64]) -> heedful::Result<Comparison> {
        let truth = self.truth(path.is_matrix())?;
        let n = truth.outputs.o.len();
        Ok(truth.check_o(if self.sampled { &o[o.len() - n..] } else { o }))
    }

    fn truth(&self, on_matrix: bool) -> heedful::Result<&Truth> {
        let cell = &self.truths[usize::from(on_matrix)];
        if let Some(truth) = cell.get() {
            return Ok(truth);
        }
        let measure = if on_matrix { Truth::measure_on_matrix_units } else { Truth::measure };
        let truth = measure(&self.problem, &self.inputs)?;
        Ok(cell.get_or_init(|| truth))
    }
}

/// Whether the last rows of a head are a call of their own: nothing but q, k and v, without gaps, a
/// diagonal that starts at the first row.
pub(super) fn is_plain(problem: &Problem) -> bool {
    let a = problem.attention();
    let tensors = [Operand::Q, Operand::K, Operand::V, Operand::O, Operand::Lse];
    let only = problem.operands().iter().all(|(operand, _)| tensors.contains(operand));
    let (causal, window) = (a.masks.causal, a.masks.window);
    let no_others = a.masks == Masks { causal, window, ..Masks::default() };
    let top_left = a.masks.iter().all(|mask| mask.align() == Some(Align::TopLeft));
    only && top_left && a.kv_storage.is_none() && no_others
}

/// Compares o with what a recorded model itself computed.
pub(crate) fn recorded(loaded: &Loaded, o: &[f64]) -> Comparison {
    let row_len = loaded.attention.shape.dim_v as usize;
    match loaded.expected.iter().find(|e| e.role == Role::Out) {
        Some(expected) => compare(&expected.values, o, row_len, &expected.tolerance),
        None => compare(&[], o, row_len, &Tolerance::Recorded { rtol: 0.0, atol: 0.0 }),
    }
}
