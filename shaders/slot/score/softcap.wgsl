// c * tanh(s / c).
fn score_softcap(s: f32, p: Position) -> f32 {
  return params.softcap * tanh4(vec4<f32>(s / params.softcap)).x;
}

// Backward:
// 1 - tanh(s / c)^2 = 1 / cosh(s / c)^2, which does not cancel far out.
fn score_softcap_derivative(s: f32, p: Position) -> f32 {
  let e = exp2(-2.0 * LOG2_E * abs(s / params.softcap));
  let t = 1.0 + e;
  return 4.0 * e / (t * t);
}
