// s * scale, in f32, on the finished product.
fn score_scale(s: f32, p: Position) -> f32 {
  return s * params.scale;
}

// Backward:
fn score_scale_derivative(s: f32, p: Position) -> f32 {
  return params.scale;
}
