// s * k_scales[head of k], or the one there is: k is stored divided by it.
fn score_key_scale(s: f32, p: Position) -> f32 {
  return s * bitcast<f32>(aux_word(params.aux_k_scales + p.head / params.group * params.kv_scale_stride));
}
