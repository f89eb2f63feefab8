// s + table[h, clamp(j - i, -left, right) + left]: a learned bias by relative position.
fn score_relative(s: f32, p: Position) -> f32 {
  let offset = clamp(i32(p.key) - i32(p.row) - params.relative_offset, -params.relative_left, params.relative_right);
  let width = u32(params.relative_left + params.relative_right + 1);
  return s + bitcast<f32>(aux_word(params.aux_relative + p.head * width + u32(offset + params.relative_left)));
}

// Backward:
// The keys of a row that take in an element of the head's table, and the derivative of their scores
// by it: the first and the last element serve all keys beyond them.
fn score_relative_keys(p: Position, element: u32) -> vec2<i32> {
  let key = i32(p.row) + params.relative_offset + i32(element) - params.relative_left;
  let last = i32(element) == params.relative_left + params.relative_right;
  return vec2<i32>(select(key, 0, element == 0u), select(key + 1, i32(params.seq_kv), last));
}

fn score_relative_entry(p: Position) -> f32 {
  return 1.0;
}
