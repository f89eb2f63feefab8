//! q, k and v on their way to the GPU: values of the host as stored rows.

use crate::problem::{Operand, Problem};

/// The bytes of q, k or v, whose `values` lie in the problem's strides; what lies between rows with scales is NaN.
pub(crate) fn stored(problem: &Problem, operand: Operand, values: &[f64]) -> Vec<u8> {
    let storage = problem.storage(operand);
    if let Some(dtype) = storage.dtype() {
        return dtype.encode(values.iter().copied());
    }
    let mut bytes = vec![0xff; storage.bytes(values.len() as u64) as usize];
    for start in row_starts(problem, operand) {
        let Some(row) = values.get(start..start + problem.dim(operand) as usize) else { continue };
        let encoded = storage.encode(row);
        let at = storage.bytes(start as u64) as usize;
        bytes[at..at + encoded.len()].copy_from_slice(&encoded);
    }
    bytes
}

/// The values that the storage holds.
pub(super) fn rounded(problem: &Problem, operand: Operand, mut values: Vec<f64>) -> Vec<f64> {
    let storage = problem.storage(operand);
    if let Some(dtype) = storage.dtype() {
        return values.into_iter().map(|x| dtype.round(x)).collect();
    }
    for start in row_starts(problem, operand) {
        if let Some(row) = values.get_mut(start..start + problem.dim(operand) as usize) {
            row.copy_from_slice(&storage.round(row));
        }
    }
    values
}

/// First unit of every row of k or v.
fn row_starts(problem: &Problem, operand: Operand) -> impl Iterator<Item = usize> {
    let heads = problem.attention().shape.heads_kv;
    let (batch, seq) = problem.extent(operand);
    let strides = problem.strides(operand);
    (0..batch).flat_map(move |b| {
        (0..heads).flat_map(move |h| {
            (0..seq).map(move |row| strides.index(b.into(), h.into(), row.into()) as usize)
        })
    })
}
