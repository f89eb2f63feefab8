// Online softmax: m is the largest score seen, l the sum of exp(s - m) over the scores seen.
// Nothing seen: m is the lowest finite f32 (never -inf, so that no inf - inf can arise).
fn normalize_empty() -> Normalizer {
  return Normalizer(LOWEST, 0.0);
}

// What weights are relative to when s has been seen as well.
fn normalize_peak(m: RowVec, s: RowVec) -> RowVec {
  return max(m, s);
}

// What sums relative to m are multiplied with to be relative to `peak`.
fn normalize_rescale(m: RowVec, peak: RowVec) -> RowVec {
  return exp2((m - peak) * LOG2_E);
}

fn normalize_weight(s: RowVec, m: RowVec, peak: RowVec) -> RowVec {
  return exp_rows(s - peak);
}

// What a key with weight p adds to l.
fn normalize_share(p: RowVec) -> RowVec {
  return p;
}

fn normalize_merge(a: Normalizer, b: Normalizer) -> Normalizer {
  let m = max(a.m, b.m);
  return Normalizer(m, a.l * exp_kept(a.m - m) + b.l * exp_kept(b.m - m));
}

// Whether every score was -inf (see common/modify.wgsl), so that nothing is left to weigh them by.
fn normalize_lost(n: Normalizer) -> bool {
  return n.m <= LOWEST && n.l > 0.0;
}

// Natural log-sum-exp; -inf where nothing was visible, NaN where all was -inf.
fn normalize_lse(n: Normalizer) -> f32 {
  if (n.l == 0.0) { return masked(); }
  return select(select(n.m + log(n.l), not_a_number(), normalize_lost(n)), n.l, is_nan(n.l));
}

// What sums relative to `seen` are multiplied with in the end; `total` is `seen` and the row's sink.
fn normalize_scale(seen: Normalizer, total: Normalizer) -> f32 {
  let scale = select(exp_kept(seen.m - total.m) / total.l, not_a_number(), normalize_lost(total));
  return select(scale, 0.0, total.l == 0.0);
}

// Backward:
// The gradient of scores from weights w, their gradient y, and shift = d_lse - sum(w y).
fn normalize_backward(s: RowVec, w: RowVec, y: RowVec, shift: RowVec) -> RowVec {
  return w * (y + shift);
}
