// 1.5-entmax (Peters et al., 2019): relu(z / 2 - tau)^2, which sums to 1. tau is found by `staged_threshold`.
const THRESHOLD_SCALE: f32 = 0.5;

// Value and slope of sum(weight) over four scores at tau.
fn threshold_terms(x: vec4<f32>) -> vec2<f32> {
  let shown = max(x, vec4<f32>(0.0));
  return vec2<f32>(dot(shown, shown), 2.0 * dot(shown, vec4<f32>(1.0)));
}

fn threshold_weight(x: vec4<f32>) -> vec4<f32> {
  let shown = max(x, vec4<f32>(0.0));
  return shown * shown;
}

// Backward:
// What a key counts in the derivative d_s = m (d_w - sum(m d_w) / sum(m)): the root of its weight.
fn threshold_measure(x: vec4<f32>) -> vec4<f32> {
  return max(x, vec4<f32>(0.0));
}
