// relu(s)^power / divisor, power 1 or 2: no statistics of the row.
fn normalize_empty() -> Normalizer {
  return Normalizer(0.0, 0.0);
}

fn normalize_peak(m: RowVec, s: RowVec) -> RowVec {
  return m;
}

fn normalize_rescale(m: RowVec, peak: RowVec) -> RowVec {
  return RowVec(1.0);
}

// NaN stays NaN, which max() may drop.
fn normalize_weight(s: RowVec, m: RowVec, peak: RowVec) -> RowVec {
  let x = select(max(s, RowVec(0.0)), s, nan_rows(s));
  return select(x, x * x, RowMask(params.relu_power == 2u));
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
  return select(params.weight_factor, 0.0, seen.l == 0.0);
}
