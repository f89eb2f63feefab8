// 1 / (1 + exp(-(s + bias))): no statistics of the row.
fn normalize_weight(s: RowVec, m: RowVec, peak: RowVec) -> RowVec {
  // Bounded where the sigmoid is below the smallest normal f32, so that no infinity arises, and 0 from there
  // on; NaN stays NaN.
  let x = s + params.sigmoid_bias;
  let weight = 1.0 / (1.0 + exp2(select(min(-x, RowVec(88.0)), x, nan_rows(x)) * LOG2_E));
  return select(weight, RowVec(0.0), (min(x, RowVec(0.0)) < RowVec(-88.0)) & !nan_rows(x));
}

fn normalize_factor() -> f32 {
  return 1.0;
}

// Backward:
// The gradient of scores from weights w and their gradient y.
fn normalize_backward(s: RowVec, w: RowVec, y: RowVec, shift: RowVec) -> RowVec {
  return w * (1.0 - w) * y;
}
