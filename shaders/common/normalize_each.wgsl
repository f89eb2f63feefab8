// What normalisers share that look at each score alone (relu, sigmoid, raw): no maximum, no rescaling, no log-sum-exp;
// l counts the keys seen. Their own file has the weight, and `normalize_factor`, what the sum is multiplied with in the
// end.
fn normalize_empty() -> Normalizer {
  return Normalizer(0.0, 0.0);
}

fn normalize_peak(m: RowVec, s: RowVec) -> RowVec {
  return m;
}

fn normalize_rescale(m: RowVec, peak: RowVec) -> RowVec {
  return RowVec(1.0);
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
  return select(normalize_factor(), 0.0, seen.l == 0.0);
}
