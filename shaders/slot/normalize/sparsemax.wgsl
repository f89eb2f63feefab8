// The projection of the scores onto the simplex (Martins and Astudillo, 2016): relu(z - tau), which
// sums to 1. tau is found by `staged_threshold`.
const THRESHOLD_SCALE: f32 = 1.0;

// Value and slope of sum(weight) over four scores at tau.
fn threshold_terms(x: vec4<f32>) -> vec2<f32> {
  let shown = max(x, vec4<f32>(0.0));
  let inside = select(vec4<f32>(0.0), vec4<f32>(1.0), x > vec4<f32>(0.0));
  return vec2<f32>(dot(shown, vec4<f32>(1.0)), dot(inside, vec4<f32>(1.0)));
}

fn threshold_weight(x: vec4<f32>) -> vec4<f32> {
  return max(x, vec4<f32>(0.0));
}

// Backward:
// What a key counts in the derivative d_s = m (d_w - sum(m d_w) / sum(m)).
fn threshold_measure(x: vec4<f32>) -> vec4<f32> {
  return select(vec4<f32>(0.0), vec4<f32>(1.0), x > vec4<f32>(0.0));
}
