//! What matrix units make of products: operands in f16, a few products summed exactly, the f32 sum cut off.

use crate::tensor::DType;

/// One visible key with its score; then with its weight.
pub(super) type Keyed = (u32, f32);

/// Products that are summed before the sum is cut to f32: the edge of the smallest matrices.
const EDGE: usize = 8;

/// What weights are multiplied with on their way into f16, as in `shaders/kernel/fused_forward_matrix.wgsl`.
const UNIT: f32 = 128.0;

/// A value as the operand of a matrix unit. What has no place in f16 is computed apart, in f32.
fn operand(x: f32) -> f64 {
    let exact = f64::from(x);
    if exact.abs() > 65_504.0 { exact } else { DType::F16.round(exact) }
}

/// The f32 that is next to x towards zero.
fn cut(x: f64) -> f32 {
    let near = x as f32;
    if f64::from(near).abs() > x.abs() { f32::from_bits(near.to_bits() - 1) } else { near }
}

/// The sum of products of pairs.
pub(super) fn dot(terms: impl Iterator<Item = (f32, f32)>) -> f32 {
    let products: Vec<f64> = terms.map(|(a, b)| operand(a) * operand(b)).collect();
    products.chunks(EDGE).fold(0.0, |sum, eight| cut(f64::from(sum) + eight.iter().sum::<f64>()))
}

/// How much larger weights are when what they are relative to lags behind the peak.
pub(super) fn ahead(lag: u8) -> f32 {
    (0.7 * f32::from(lag)).exp()
}

/// The weighted sum of v, weights `ahead` times as large in f16.
pub(super) fn sum<'a>(
    keys: &[Keyed],
    dim_v: usize,
    ahead: f32,
    v: impl Fn(u32) -> &'a [f64],
) -> Vec<f32> {
    let mut o = vec![0.0_f32; dim_v];
    let unit = ahead * UNIT;
    let weight = |p: f32| DType::F16.round(f64::from(p * unit)) / f64::from(unit);
    for eight in keys.chunks(EDGE) {
        for (c, sum) in o.iter_mut().enumerate() {
            let products = eight.iter().map(|(key, p)| weight(*p) * operand(v(*key)[c] as f32));
            *sum = cut(f64::from(*sum) + products.sum::<f64>());
        }
    }
    o
}

/// Maximum, exponentials and their sum in f32, then the weighted sum; scores become weights.
pub(super) fn softmax<'a>(
    keys: &mut [Keyed],
    sink: Option<f32>,
    dim_v: usize,
    ahead: f32,
    v: impl Fn(u32) -> &'a [f64],
) -> (Vec<f32>, f32) {
    let scores = keys.iter().map(|(_, s)| *s);
    let peak = scores.chain(sink).fold(f32::NEG_INFINITY, f32::max);
    for (_, s) in keys.iter_mut() {
        *s = (*s - peak).exp();
    }
    let total: f32 = keys.iter().map(|(_, e)| *e).chain(sink.map(|z| (z - peak).exp())).sum();
    let o = sum(keys, dim_v, ahead, v).into_iter().map(|x| x / total).collect();
    keys.iter_mut().for_each(|(_, p)| *p /= total);
    (o, peak + total.ln())
}

#[cfg(test)]
mod tests {
    use super::{cut, dot, operand};

    #[test]
    fn operands_are_f16_where_they_fit() {
        assert_eq!(operand(1.0 + 1.0 / 4096.0), 1.0);
        assert_eq!(operand(65_504.0), 65_504.0);
        assert_eq!(operand(1e6), 1e6);
        assert_eq!(operand(-1e-9), 0.0);
    }

    #[test]
    fn sums_are_cut_toward_zero() {
        let above = 1.0 + 1.5 * f64::from(f32::EPSILON);
        assert_eq!(cut(above), 1.0 + f32::EPSILON);
        assert_eq!(cut(-above), -1.0 - f32::EPSILON);
        assert_eq!(cut(0.1), 0.1_f64 as f32 - f32::EPSILON / 16.0);
        // Eight products are summed before anything is cut.
        let small = 2.0_f32.powi(-12);
        let pairs = std::iter::once((1.0, 1.0)).chain(std::iter::repeat_n((small, small), 7));
        assert_eq!(dot(pairs), 1.0 + 3.0 * f32::EPSILON);
    }
}
