// s + table[h, clamp(j - i, -left, right) + left]: a learned bias by relative position.
fn score_relative(s: f32, p: Position) -> f32 {
  let offset = clamp(i32(p.key) - i32(p.row) - params.relative_offset, -params.relative_left, params.relative_right);
  let width = u32(params.relative_left + params.relative_right + 1);
  return s + bitcast<f32>(aux_word(params.aux_relative + p.head * width + u32(offset + params.relative_left)));
}
