// c * tanh(s / c).
fn score_softcap(s: f32, p: Position) -> f32 {
  return params.softcap * tanh4(vec4<f32>(s / params.softcap)).x;
}
