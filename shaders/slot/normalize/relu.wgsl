// relu(s)^power / divisor, power 1 or 2: no statistics of the row.
// NaN stays NaN, which max() may drop.
fn normalize_weight(s: RowVec, m: RowVec, peak: RowVec) -> RowVec {
  let x = select(max(s, RowVec(0.0)), s, nan_rows(s));
  return select(x, x * x, RowMask(params.relu_power == 2u));
}

fn normalize_factor() -> f32 {
  return params.weight_factor;
}

// Backward:
// The gradient of scores from that of weights; 0 at 0.
fn normalize_backward(s: RowVec, w: RowVec, y: RowVec, shift: RowVec) -> RowVec {
  let above = select(RowVec(0.0), RowVec(1.0), s > RowVec(0.0));
  let slope = select(above, 2.0 * max(s, RowVec(0.0)), RowMask(params.relu_power == 2u));
  return params.weight_factor * slope * y;
}
