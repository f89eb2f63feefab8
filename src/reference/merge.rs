//! Partial results joined, in float64.

/// Joins the results of one call over parts of its keys: o `[parts, rows, dim_v]` and lse `[parts, rows]` become o
/// `[rows, dim_v]` and lse `[rows]`.
///
/// lse = ln Σ exp(lse_p), o = Σ exp(lse_p − lse) o_p; a part whose lse is −∞ saw nothing and changes nothing. A sink
/// belongs into one part only.
///
/// # Panics
/// When the lengths do not fit each other.
pub fn merge_states(o: &[f64], lse: &[f64], parts: usize, dim_v: usize) -> (Vec<f64>, Vec<f64>) {
    let rows = lse.len() / parts;
    assert_eq!((lse.len(), o.len()), (parts * rows, parts * rows * dim_v), "lengths that fit");
    let (mut joined, mut joined_lse) = (vec![0.0; rows * dim_v], Vec::with_capacity(rows));
    for row in 0..rows {
        let of = |part: usize| lse[part * rows + row];
        let peak = (0..parts).map(of).fold(f64::NEG_INFINITY, f64::max);
        let seen = || (0..parts).filter(|part| of(*part) != f64::NEG_INFINITY);
        let total: f64 = seen().map(|part| (of(part) - peak).exp()).sum();
        let whole = if total == 0.0 { f64::NEG_INFINITY } else { peak + total.ln() };
        for part in seen() {
            let weight = (of(part) - peak).exp() / total;
            let at = (part * rows + row) * dim_v;
            let out = &mut joined[row * dim_v..][..dim_v];
            out.iter_mut().zip(&o[at..at + dim_v]).for_each(|(sum, x)| *sum += weight * x);
        }
        joined_lse.push(whole);
    }
    (joined, joined_lse)
}
