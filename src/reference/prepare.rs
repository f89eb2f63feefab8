//! q and k as they meet: rotated, projected, normalised; the meaning of `feature::prepare`.

use crate::feature::operand::Rows;
use crate::feature::{Entry, Operands};
use crate::problem::{Operand, Problem};
use crate::reference::Inputs;
use crate::reference::arithmetic::Arithmetic;

/// The prepared copy of q or k, `[batch, heads, seq, dim_qk]` without gaps; `None` where the operand is
/// read as it is. `round` is applied to the result of every operation.
pub fn prepare(
    problem: &Problem,
    inputs: &Inputs<'_>,
    operand: Operand,
    round: impl Fn(f64) -> f64,
) -> Option<Vec<f64>> {
    if !problem.prepares(operand) {
        return None;
    }
    let operands = &inputs.operands;
    rows(problem, inputs, operand, problem.attention().shape.dim_qk, |at, mut x| {
        turn(problem, operands, operand, at, &mut x, Turn::Forth, &round);
        shape(problem, operands, operand, at[1], x, &round)
    })
}

/// q or k as it is rotated and nothing more, `[batch, heads, seq, dim]` without gaps.
pub(crate) fn rotated(
    problem: &Problem,
    inputs: &Inputs<'_>,
    operand: Operand,
) -> Option<Vec<f64>> {
    rows(problem, inputs, operand, problem.dim(operand), |at, mut x| {
        turn(problem, &inputs.operands, operand, at, &mut x, Turn::Forth, &|x| x);
        x
    })
}

/// What is made of each row of q or k, `dim` channels; 0 where packed tensors hold none.
fn rows(
    problem: &Problem,
    inputs: &Inputs<'_>,
    operand: Operand,
    dim: u32,
    make: impl Fn([u32; 3], Vec<f64>) -> Vec<f64>,
) -> Option<Vec<f64>> {
    let values = inputs.rows(operand.rows()?)?;
    let own = problem.dim(operand) as usize;
    let mut out = Vec::new();
    for at in places(problem, operand) {
        if at[2] >= problem.rows_held(operand, at[0], &inputs.operands) {
            out.resize(out.len() + dim as usize, 0.0);
            continue;
        }
        let start = problem.index(operand, at, &inputs.operands) as usize;
        out.extend(make(at, values.get(start..start + own).unwrap_or_default().to_vec()));
    }
    Some(out)
}

/// (sequence, head, row) of every row of q or k, in order.
pub(crate) fn places(problem: &Problem, operand: Operand) -> impl Iterator<Item = [u32; 3]> {
    let (heads, seq) = (problem.heads(operand), problem.seq(operand));
    let batch = problem.attention().shape.batch;
    (0..batch).flat_map(move |b| (0..heads).flat_map(move |h| (0..seq).map(move |row| [b, h, row])))
}

/// How a row is rotated.
#[derive(Clone, Copy, PartialEq)]
enum Turn {
    Forth,
    Back,
    /// Not at all: what rotating back makes of magnitudes.
    Sizes,
}

/// Rotates a row by its position.
fn turn(
    problem: &Problem,
    operands: &Operands<'_>,
    operand: Operand,
    [batch, _, row]: [u32; 3],
    x: &mut [f64],
    way: Turn,
    round: &impl Fn(f64) -> f64,
) {
    let Some(rotary) = problem.attention().rotary else { return };
    let (from, start) = match operand.rows() {
        Some(Rows::Q) if rotary.at_end => {
            let (q_len, kv_len) = problem.lengths(batch, operands);
            (0, kv_len.max(q_len) - q_len)
        }
        Some(Rows::Q) => (0, rotary.q_start),
        Some(Rows::K) => (rotary.keys_from, rotary.k_start),
        Some(Rows::V | Rows::O) | None => return,
    };
    if row < from {
        return;
    }
    let keys = operand.rows() == Some(Rows::K);
    let position = match rotary.ids_of(keys, &problem.attention().shape) {
        None => row - from + start,
        Some((table, ids)) => {
            let own = table == Operand::KeyPositions;
            let all = if own { operands.key_positions } else { operands.positions };
            let sequence = if rotary.shared_ids { 0 } else { batch as usize };
            all[sequence * ids as usize + (row - from) as usize]
        }
    };
    let half = rotary.dim as usize / 2;
    let angles = position.min(rotary.table_rows - 1) as usize * half;
    let before = x.to_vec();
    for c in 0..rotary.dim {
        let (partner, m, first) = rotary.pair(c);
        let angle = angles + m as usize;
        let (cos, sin) = (operands.rotary_cos[angle], operands.rotary_sin[angle]);
        let (x_c, y) = (before[c as usize], before[partner as usize]);
        let turned = round(y * sin);
        let sum = round(x_c * cos);
        x[c as usize] = round(match (way, first) {
            (Turn::Sizes, _) => sum.abs() + turned.abs(),
            (Turn::Forth, true) | (Turn::Back, false) => sum - turned,
            (Turn::Forth, false) | (Turn::Back, true) => sum + turned,
        });
    }
}

/// Projects a row of q by the general score's matrix, or brings a row to length 1.
fn shape(
    problem: &Problem,
    operands: &Operands<'_>,
    operand: Operand,
    head: u32,
    x: Vec<f64>,
    round: &impl Fn(f64) -> f64,
) -> Vec<f64> {
    let a = problem.attention();
    if a.general.is_some() && operand == Operand::Q {
        let columns = a.shape.dim_qk as usize;
        let column = |c: usize| {
            let terms =
                x.iter().enumerate().map(|(e, x)| x * operands.score_matrix[e * columns + c]);
            terms.fold(0.0, |sum, term| round(sum + term))
        };
        return (0..columns).map(column).collect();
    }
    let Some(cosine) = a.cosine else { return x };
    let squares = x.iter().fold(0.0, |sum, x| round(sum + x * x));
    let norm = round(squares.sqrt());
    let eps = f64::from(cosine.eps.get());
    // Not f64::max, which drops NaN.
    let mut factor = round(1.0 / if norm < eps { eps } else { norm });
    if cosine.head_scale && operand == Operand::Q {
        factor = round(factor * operands.head_scale[head as usize]);
    }
    x.into_iter().map(|x| round(x * factor)).collect()
}

/// Turns the gradient of q or k as it meets the other, `[batch, heads, seq, dim_qk]` without gaps, into that of the
/// operand as the caller has it; returns what it makes of the gradients of the tensors that prepared it.
pub(super) fn prepare_backward(
    problem: &Problem,
    inputs: &Inputs<'_>,
    operand: Operand,
    gradient: &mut Vec<f64>,
    how: Arithmetic,
) -> Vec<Entry> {
    let mut entries = Vec::new();
    let exact = how != Arithmetic::Bound;
    let values = operand.rows().and_then(|rows| inputs.rows(rows));
    let (true, Some(values)) = (problem.prepares(operand), values) else { return entries };
    let s = problem.attention().shape;
    let dim = problem.dim(operand) as usize;
    let mut out = Vec::new();
    for (at, d) in places(problem, operand).zip(gradient.chunks(s.dim_qk as usize)) {
        // A row that passes nothing on has gradient 0, whatever it holds.
        if d.iter().all(|d| *d == 0.0) {
            out.resize(out.len() + dim, 0.0);
            continue;
        }
        let start = problem.index(operand, at, &inputs.operands) as usize;
        let mut x = values.get(start..start + dim).unwrap_or_default().to_vec();
        turn(problem, &inputs.operands, operand, at, &mut x, Turn::Forth, &|x| x);
        let mut d = match exact {
            true => {
                shape_backward(problem, &inputs.operands, operand, at[1], [&x, d], &mut entries)
            }
            false => shape_bound(problem, &inputs.operands, operand, at[1], [&x, d], &mut entries),
        };
        let back = if exact { Turn::Back } else { Turn::Sizes };
        turn(problem, &inputs.operands, operand, at, &mut d, back, &|x| x);
        out.extend(d.into_iter().map(|x| how.round(x)));
    }
    *gradient = out;
    entries
}

/// [`prepare_backward`] in float64.
pub(crate) fn unprepare(
    problem: &Problem,
    inputs: &Inputs<'_>,
    operand: Operand,
    mut gradient: Vec<f64>,
) -> (Vec<f64>, Vec<Entry>) {
    let entries = prepare_backward(problem, inputs, operand, &mut gradient, Arithmetic::Exact);
    (gradient, entries)
}

/// The gradient of a row before [`shape`], from that of what it became.
fn shape_backward(
    problem: &Problem,
    operands: &Operands<'_>,
    operand: Operand,
    head: u32,
    [x, d]: [&[f64]; 2],
    entries: &mut Vec<Entry>,
) -> Vec<f64> {
    let a = problem.attention();
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    if a.general.is_some() && operand == Operand::Q {
        let columns = a.shape.dim_qk as usize;
        for (e, x) in x.iter().enumerate() {
            let one = |(c, d): (usize, &f64)| Entry {
                operand: Operand::ScoreMatrix,
                index: e * columns + c,
                factor: x * d,
            };
            entries.extend(d.iter().enumerate().map(one));
        }
        return operands.score_matrix.chunks(columns).map(|row| product(row, d)).collect();
    }
    let Some(cosine) = a.cosine else { return d.to_vec() };
    let norm = product(x, x).sqrt();
    let eps = f64::from(cosine.eps.get());
    let short = norm < eps;
    let length = if short { eps } else { norm };
    let along = product(x, d);
    let mut scale = 1.0;
    if cosine.head_scale && operand == Operand::Q {
        scale = operands.head_scale[head as usize];
        let factor = along / length;
        entries.push(Entry { operand: Operand::HeadScale, index: head as usize, factor });
    }
    // A row that is divided by eps is divided by a constant.
    let turned = if short { 0.0 } else { along / (norm * norm) };
    x.iter().zip(d).map(|(x, d)| scale * (d - x * turned) / length).collect()
}

/// The same of magnitudes: every term is added, none is taken away.
fn shape_bound(
    problem: &Problem,
    operands: &Operands<'_>,
    operand: Operand,
    head: u32,
    [x, d]: [&[f64]; 2],
    entries: &mut Vec<Entry>,
) -> Vec<f64> {
    let a = problem.attention();
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a * b).abs()).sum::<f64>();
    let Some(cosine) = a.cosine else {
        let sizes: Vec<f64> = operands.score_matrix.iter().map(|w| w.abs()).collect();
        let of_sizes = Operands { score_matrix: &sizes, ..*operands };
        let x: Vec<f64> = x.iter().map(|x| x.abs()).collect();
        return shape_backward(problem, &of_sizes, operand, head, [&x, d], entries);
    };
    let norm = x.iter().map(|x| x * x).sum::<f64>().sqrt();
    let length = norm.max(f64::from(cosine.eps.get()));
    let along = product(x, d);
    let mut scale = 1.0;
    if cosine.head_scale && operand == Operand::Q {
        scale = operands.head_scale[head as usize].abs();
        let factor = along / length;
        entries.push(Entry { operand: Operand::HeadScale, index: head as usize, factor });
    }
    x.iter()
        .zip(d)
        .map(|(x, d)| scale * (d + x.abs() * along / (length * length)) / length)
        .collect()
}
