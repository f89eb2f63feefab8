// Online softmax state of a row: m is the largest score seen, l the sum of exp(s - m) over the scores seen.
// Nothing seen: l = 0, and m is the lowest finite f32 (never -inf, so that no inf - inf can arise).
struct Normalizer {
  m: f32,
  l: f32,
}

fn normalize_empty() -> Normalizer {
  return Normalizer(LOWEST, 0.0);
}

// exp(s - m); callers select masked scores away.
fn normalize_exp(s: f32, m: f32) -> f32 {
  return exp_kept(s - m);
}

fn normalize_merge(a: Normalizer, b: Normalizer) -> Normalizer {
  let m = max(a.m, b.m);
  return Normalizer(m, a.l * normalize_exp(a.m, m) + b.l * normalize_exp(b.m, m));
}

// Natural log-sum-exp; -inf where nothing was visible.
fn normalize_lse(n: Normalizer) -> f32 {
  if (n.l == 0.0) { return masked(); }
  return select(n.m + log(n.l), n.l, is_nan(n.l));
}

fn normalize_reciprocal(n: Normalizer) -> f32 {
  return select(1.0 / n.l, 0.0, n.l == 0.0);
}
