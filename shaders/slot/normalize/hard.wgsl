// All weight on the largest score, the first of equals; NaN and -inf are the least. m is the largest seen,
// -inf at first; l says whether any was.
fn normalize_empty() -> Normalizer {
  return Normalizer(masked(), 0.0);
}

fn normalize_peak(m: RowVec, s: RowVec) -> RowVec {
  let x = select(s, RowVec(LOWEST), nan_rows(s));
  return select(m, x, x > m);
}

// A better key replaces what was taken: kernels select, so that no infinity is multiplied by 0.
fn normalize_rescale(m: RowVec, peak: RowVec) -> RowVec {
  return select(RowVec(1.0), RowVec(0.0), peak > m);
}

fn normalize_weight(s: RowVec, m: RowVec, peak: RowVec) -> RowVec {
  return select(RowVec(0.0), RowVec(1.0), peak > m);
}

fn normalize_share(p: RowVec) -> RowVec {
  return p;
}

fn normalize_merge(a: Normalizer, b: Normalizer) -> Normalizer {
  let better = b.m > a.m || (b.m == a.m && b.l < a.l);
  if (b.l != 0.0 && (a.l == 0.0 || better)) { return b; }
  return a;
}

fn normalize_lse(n: Normalizer) -> f32 {
  return 0.0;
}

fn normalize_scale(seen: Normalizer, total: Normalizer) -> f32 {
  return select(1.0, 0.0, seen.l == 0.0);
}

// In the staged path, where lanes see keys by turns, l is the key that has m, plus 1.
fn push4(state: Normalizer, s: vec4<f32>, key: u32) -> Normalizer {
  var best = state;
  for (var c = 0u; c < 4u; c += 1u) {
    let x = select(s[c], LOWEST, is_nan(s[c]));
    if (!is_masked(x) && x > best.m) { best = Normalizer(x, f32(key + c + 1u)); }
  }
  return best;
}

fn weights4(s: vec4<f32>, total: Normalizer, key: u32) -> vec4<f32> {
  return vec4<f32>(1.0);
}

// Keys that are not taken have no part.
fn no_part4(s: vec4<f32>, total: Normalizer, key: u32) -> vec4<bool> {
  let keys = vec4<f32>(vec4<u32>(key + 1u, key + 2u, key + 3u, key + 4u));
  return keys != vec4<f32>(total.l);
}
