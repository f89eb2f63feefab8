// What `staged_normalize` does with four scores of one row at a time, for normalisers that look at each score alone or
// at the largest.

// Folds four scores into the state, rescaling it once. `key` is the first one's.
fn push4(state: Normalizer, s: vec4<f32>, key: u32) -> Normalizer {
  let hidden = masked4(s);
  let before = vec4<f32>(state.m);
  let peaks = select(normalize_peak(before, s), before, hidden);
  let m = max(max(peaks.x, peaks.y), max(peaks.z, peaks.w));
  let p = normalize_weight(s, before, vec4<f32>(m));
  let share = select(normalize_share(p), vec4<f32>(0.0), hidden);
  let kept = state.l * normalize_rescale(before, vec4<f32>(m)).x;
  return Normalizer(m, kept + ((share.x + share.y) + (share.z + share.w)));
}

// Weights of four scores, relative to the row's total, masked or not.
fn weights4(s: vec4<f32>, total: Normalizer, key: u32) -> vec4<f32> {
  let m = vec4<f32>(total.m);
  return normalize_weight(s, m, m);
}

// Keys that have no part in the row's sum.
fn no_part4(s: vec4<f32>, total: Normalizer, key: u32) -> vec4<bool> {
  return masked4(s);
}
