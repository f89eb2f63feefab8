// Graph attention's additive score: x, or slope * x below 0. NaN stays NaN.
fn inner_activate(x: vec4<f32>) -> vec4<f32> {
  return select(x, params.leaky_slope * x, x < vec4<f32>(0.0));
}
