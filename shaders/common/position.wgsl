// A block of query rows of one head of one sequence, with what its masks need to know.
struct Rows {
  batch: u32,
  head: u32,
  // First and last row, both included.
  first: u32,
  last: u32,
  q_len: u32,
  kv_len: u32,
  diagonal: i32,
  alibi_offset: i32,
}

// One (query row, key) pair: what score modifiers and masks are told.
struct Position {
  batch: u32,
  head: u32,
  row: u32,
  key: u32,
  q_len: u32,
  kv_len: u32,
  diagonal: i32,
  alibi_offset: i32,
}

fn rows_of(batch: u32, head: u32, first: u32, last: u32) -> Rows {
  let q_len = q_length(batch);
  let kv_len = kv_length(batch);
  return Rows(batch, head, first, last, q_len, kv_len, diagonal(batch, q_len, kv_len),
    alibi_offset(batch, q_len, kv_len));
}

fn position_at(rows: Rows, row: u32, key: u32) -> Position {
  return Position(rows.batch, rows.head, row, key, rows.q_len, rows.kv_len, rows.diagonal, rows.alibi_offset);
}

// The keys [x, y) that some row of the block may see; (0, 0) when there are none.
fn key_range(rows: Rows) -> vec2<u32> {
  let end = select(0, i32(rows.kv_len), rows.first < rows.q_len);
  let keys = max(narrow(rows, vec2<i32>(0, end)), vec2<i32>(0));
  return select(vec2<u32>(0u), vec2<u32>(keys), keys.x < keys.y);
}
