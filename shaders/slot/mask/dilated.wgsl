// Key j is visible to row i iff j - i - diagonal is a multiple of `dilation`.
fn mask_dilated(p: Position) -> bool {
  return abs(i32(p.key) - i32(p.row) - p.diagonal) % params.dilation == 0;
}

fn mask_dilated_range(rows: Rows, keys: vec2<i32>) -> vec2<i32> {
  return keys;
}

fn mask_dilated_whole(rows: Rows, keys: vec2<i32>) -> vec2<i32> {
  return vec2<i32>(0);
}
