// 1 / (1 + exp(-(s + bias))): no statistics of the row.
fn normalize_empty() -> Normalizer {
  return Normalizer(0.0, 0.0);
}

fn normalize_peak(m: RowVec, s: RowVec) -> RowVec {
  return m;
}

fn normalize_rescale(m: RowVec, peak: RowVec) -> RowVec {
  return RowVec(1.0);
}

fn normalize_weight(s: RowVec, m: RowVec, peak: RowVec) -> RowVec {
  // Bounded where the sigmoid is 0 to f32, so that no infinity arises; NaN stays NaN.
  let x = s + params.sigmoid_bias;
  return 1.0 / (1.0 + exp2(select(min(-x, RowVec(88.0)), x, nan_rows(x)) * LOG2_E));
}

fn normalize_share(p: RowVec) -> RowVec {
  return RowVec(1.0);
}

fn normalize_merge(a: Normalizer, b: Normalizer) -> Normalizer {
  return Normalizer(0.0, a.l + b.l);
}

fn normalize_lse(n: Normalizer) -> f32 {
  return 0.0;
}

fn normalize_scale(seen: Normalizer, total: Normalizer) -> f32 {
  return select(1.0, 0.0, seen.l == 0.0);
}
