// All weight on the largest score, the first of equals. m is the largest seen, -inf at first; l says whether any was.
fn normalize_empty() -> Normalizer {
  return Normalizer(masked(), 0.0);
}

fn normalize_peak(m: RowVec, s: RowVec) -> RowVec {
  return select(m, s, s > m);
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
    if (!is_masked(s[c]) && s[c] > best.m) { best = Normalizer(s[c], f32(key + c + 1u)); }
  }
  return best;
}

fn weights4(s: vec4<f32>, total: Normalizer, key: u32) -> vec4<f32> {
  let keys = vec4<f32>(vec4<u32>(key + 1u, key + 2u, key + 3u, key + 4u));
  return select(vec4<f32>(0.0), vec4<f32>(1.0), keys == vec4<f32>(total.l));
}
