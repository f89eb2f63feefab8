//! q and k as they meet: rotated, projected, normalised; the meaning of `feature::prepare`.

use crate::feature::operand::Rows;
use crate::feature::{Entry, Operands};
use crate::problem::{Operand, Problem};
use crate::reference::Inputs;

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
    let s = problem.attention().shape;
    let values = inputs.rows(operand.rows()?)?;
    let (heads, seq) = (problem.heads(operand), problem.seq(operand));
    let dim = problem.dim(operand) as usize;
    let mut out = Vec::new();
    for batch in 0..s.batch {
        for head in 0..heads {
            for row in 0..seq {
                let at = [batch, head, row];
                let start = problem.index(operand, at, &inputs.operands) as usize;
                let mut x = values.get(start..start + dim).unwrap_or_default().to_vec();
                turn(problem, &inputs.operands, operand, at, &mut x, &round);
                out.extend(shape(problem, &inputs.operands, operand, head, x, &round));
            }
        }
    }
    Some(out)
}

/// Rotates a row by its position.
fn turn(
    problem: &Problem,
    operands: &Operands<'_>,
    operand: Operand,
    at: [u32; 3],
    x: &mut [f64],
    round: &impl Fn(f64) -> f64,
) {
    turn_by(problem, operands, operand, at, x, 1.0, round);
}

/// Rotates a row by its position, `sign` 1, or back, −1.
fn turn_by(
    problem: &Problem,
    operands: &Operands<'_>,
    operand: Operand,
    [batch, _, row]: [u32; 3],
    x: &mut [f64],
    sign: f64,
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
        let cos = operands.rotary_cos[angles + m as usize];
        let sin = sign * operands.rotary_sin[angles + m as usize];
        let (x_c, y) = (before[c as usize], before[partner as usize]);
        let turned = round(y * sin);
        let sum = round(x_c * cos);
        x[c as usize] = round(if first { sum - turned } else { sum + turned });
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
) -> Vec<Entry> {
    let mut entries = Vec::new();
    let values = operand.rows().and_then(|rows| inputs.rows(rows));
    let (true, Some(values)) = (problem.prepares(operand), values) else { return entries };
    let s = problem.attention().shape;
    let dim = problem.dim(operand) as usize;
    let (heads, seq) = (problem.heads(operand), problem.seq(operand));
    let places = (0..s.batch).flat_map(|batch| {
        (0..heads).flat_map(move |head| (0..seq).map(move |row| [batch, head, row]))
    });
    let mut out = Vec::new();
    for (at, d) in places.zip(gradient.chunks(s.dim_qk as usize)) {
        // A row that passes nothing on has gradient 0, whatever it holds.
        if d.iter().all(|d| *d == 0.0) {
            out.resize(out.len() + dim, 0.0);
            continue;
        }
        let start = problem.index(operand, at, &inputs.operands) as usize;
        let mut x = values.get(start..start + dim).unwrap_or_default().to_vec();
        turn(problem, &inputs.operands, operand, at, &mut x, &|x| x);
        let mut d = shape_backward(problem, &inputs.operands, operand, at[1], &x, d, &mut entries);
        turn_by(problem, &inputs.operands, operand, at, &mut d, -1.0, &|x| x);
        out.extend(d);
    }
    *gradient = out;
    entries
}

/// The gradient of a row before [`shape`], from that of what it became.
fn shape_backward(
    problem: &Problem,
    operands: &Operands<'_>,
    operand: Operand,
    head: u32,
    x: &[f64],
    d: &[f64],
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
