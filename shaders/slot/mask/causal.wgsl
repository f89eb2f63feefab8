// Key j is visible to row i iff j <= i + diagonal.
fn mask_causal(p: Position) -> bool {
  return i32(p.key) - i32(p.row) <= p.diagonal;
}

fn mask_causal_range(rows: Rows, keys: vec2<i32>) -> vec2<i32> {
  return vec2<i32>(keys.x, min(keys.y, i32(rows.last) + rows.diagonal + 1));
}

fn mask_causal_whole(rows: Rows, keys: vec2<i32>) -> vec2<i32> {
  return vec2<i32>(keys.x, min(keys.y, i32(rows.first) + rows.diagonal + 1));
}
