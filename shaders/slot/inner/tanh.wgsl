// Bahdanau's additive score.
fn inner_activate(x: vec4<f32>) -> vec4<f32> {
  return tanh4(x);
}
