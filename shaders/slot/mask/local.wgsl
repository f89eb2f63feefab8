// Key j is visible to row i iff |j - centers[b, i]| <= reach: local attention around a predicted position (Luong et
// al., 2015).
fn local_distance(p: Position) -> f32 {
  let row = min(p.row, params.seq_q - 1u);
  return f32(p.key) - bitcast<f32>(aux_word(params.aux_centers + p.batch * params.seq_q + row));
}

fn mask_local(p: Position) -> bool {
  return abs(local_distance(p)) <= params.local_reach;
}

fn mask_local_range(rows: Rows, keys: vec2<i32>) -> vec2<i32> {
  return keys;
}

fn mask_local_whole(rows: Rows, keys: vec2<i32>) -> vec2<i32> {
  return vec2<i32>(0);
}

// exp(-(j - center)^2 / (2 sigma^2)), sigma = reach / 2: multiplies weights after they are normalised.
fn mask_local_factor(p: Position) -> f32 {
  let x = local_distance(p) * params.local_inverse_sigma;
  return exp2(-0.5 * LOG2_E * x * x);
}

// Backward:
// The derivative of the factor's logarithm by the centre.
fn mask_local_slope(p: Position) -> f32 {
  return local_distance(p) * params.local_inverse_sigma * params.local_inverse_sigma;
}
