// i + diagonal - left <= j <= i + diagonal + right; an unbounded side holds MAX_OFFSET * 2, which no distance reaches.
fn mask_window(p: Position) -> bool {
  let distance = i32(p.key) - i32(p.row) - p.diagonal;
  return distance >= -params.window_left && distance <= params.window_right;
}

fn mask_window_range(rows: Rows, keys: vec2<i32>) -> vec2<i32> {
  let first = i32(rows.first) + rows.diagonal - params.window_left;
  let end = i32(rows.last) + rows.diagonal + params.window_right + 1;
  return vec2<i32>(max(keys.x, first), min(keys.y, end));
}

fn mask_window_whole(rows: Rows, keys: vec2<i32>) -> vec2<i32> {
  let first = i32(rows.last) + rows.diagonal - params.window_left;
  let end = i32(rows.first) + rows.diagonal + params.window_right + 1;
  return vec2<i32>(max(keys.x, first), min(keys.y, end));
}
