// s - slope[h] * |i + offset - j|, the offset in p.alibi_offset (0, kv_len - q_len, or given).
fn score_alibi(s: f32, p: Position) -> f32 {
  let slope = bitcast<f32>(aux_word(params.aux_alibi_slopes + p.head));
  let distance = abs(i32(p.row) + p.alibi_offset - i32(p.key));
  // fma: one rounding, the same on every device.
  return fma(-slope, f32(distance), s);
}
