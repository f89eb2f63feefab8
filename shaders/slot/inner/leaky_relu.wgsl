// Graph attention's additive score: x, or slope * x below 0. NaN stays NaN.
fn inner_activate(x: vec4<f32>) -> vec4<f32> {
  return select(x, params.leaky_slope * x, x < vec4<f32>(0.0));
}

// Backward:
// At 0 that from above.
fn inner_derivative(x: vec4<f32>) -> vec4<f32> {
  return select(select(vec4<f32>(1.0), vec4<f32>(params.leaky_slope), x < vec4<f32>(0.0)), x, x != x);
}
