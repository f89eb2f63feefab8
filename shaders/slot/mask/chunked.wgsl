// Key j is visible to row i iff i + diagonal and j lie in the same chunk of `chunk` positions.
fn chunk_of(position: i32) -> i32 {
  // Rounded down, also before position 0.
  return (position - select(0, params.chunk - 1, position < 0)) / params.chunk;
}

fn mask_chunked(p: Position) -> bool {
  return chunk_of(i32(p.row) + p.diagonal) == chunk_of(i32(p.key));
}

fn mask_chunked_range(rows: Rows, keys: vec2<i32>) -> vec2<i32> {
  let first = chunk_of(i32(rows.first) + rows.diagonal) * params.chunk;
  let end = (chunk_of(i32(rows.last) + rows.diagonal) + 1) * params.chunk;
  return vec2<i32>(max(keys.x, first), min(keys.y, end));
}

fn mask_chunked_whole(rows: Rows, keys: vec2<i32>) -> vec2<i32> {
  let first = chunk_of(i32(rows.last) + rows.diagonal) * params.chunk;
  let end = (chunk_of(i32(rows.first) + rows.diagonal) + 1) * params.chunk;
  return vec2<i32>(max(keys.x, first), min(keys.y, end));
}
