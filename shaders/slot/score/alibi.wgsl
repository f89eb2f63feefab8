// s - slope[h] * |i + offset - j|, the offset in p.alibi_offset (0, kv_len - q_len, or given).
fn score_alibi(s: f32, p: Position) -> f32 {
  let slope = bitcast<f32>(aux_word(params.aux_alibi_slopes + p.head));
  let distance = abs(i32(p.row) + p.alibi_offset - i32(p.key));
  // fma: one rounding, the same on every device.
  return fma(-slope, f32(distance), s);
}

// Backward:
// The keys of a row that take in an element of the head's table, and the derivative of their scores by it.
fn score_alibi_keys(p: Position, element: u32) -> vec2<i32> {
  return vec2<i32>(0, i32(params.seq_kv));
}

fn score_alibi_entry(p: Position) -> f32 {
  return -f32(abs(i32(p.row) + p.alibi_offset - i32(p.key)));
}
