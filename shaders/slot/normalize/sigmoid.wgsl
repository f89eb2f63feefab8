// 1 / (1 + exp(-(s + bias))): no statistics of the row.
fn normalize_weight(s: RowVec, m: RowVec, peak: RowVec) -> RowVec {
  // Bounded where the sigmoid is 0 to f32, so that no infinity arises; NaN stays NaN.
  let x = s + params.sigmoid_bias;
  return 1.0 / (1.0 + exp2(select(min(-x, RowVec(88.0)), x, nan_rows(x)) * LOG2_E));
}

fn normalize_factor() -> f32 {
  return 1.0;
}
