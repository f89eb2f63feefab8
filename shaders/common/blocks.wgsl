// The block table: two bits for each block of block_rows query rows by block_keys keys, 16 blocks to a word, rows of
// words one after another for each head and sequence that has its own (stride 0 where one serves all).
//
// Bit 0: some row of the block may see some key of it. Bit 1: no mask given as data hides anything in the block.
fn block_bits(batch: u32, head: u32, block_row: u32, block_key: u32) -> u32 {
  let word = params.aux_blocks + batch * params.blocks_stride_batch + head * params.blocks_stride_head
    + block_row * params.blocks_stride_row + (block_key >> 4u);
  return (aux_word(word) >> ((block_key & 15u) * 2u)) & 3u;
}

// The bits of a block of keys for all rows together: bit 0 if any row block visits it, bit 1 if all are whole.
fn rows_bits(rows: Rows, block_key: u32) -> u32 {
  var some = 0u;
  var every = 2u;
  for (var r = rows.first / params.block_rows; r <= rows.last / params.block_rows; r += 1u) {
    let bits = block_bits(rows.batch, rows.head, r, block_key);
    some |= bits & 1u;
    every &= bits;
  }
  return some | every;
}

// Whether any row visits any of the keys [x, y).
fn blocks_visit(rows: Rows, keys: vec2<u32>) -> bool {
  var some = 0u;
  for (var b = keys.x / params.block_keys; b * params.block_keys < keys.y; b += 1u) {
    some |= rows_bits(rows, b);
  }
  return (some & 1u) != 0u;
}

// Whether all rows visit all of the keys [x, y), and no mask given as data hides any of them.
fn blocks_whole(rows: Rows, keys: vec2<u32>) -> bool {
  var every = 3u;
  for (var b = keys.x / params.block_keys; b * params.block_keys < keys.y; b += 1u) {
    every &= rows_bits(rows, b);
  }
  return every == 3u;
}

// The next keys at or after `start` that are visited, as (first, first whole, end of whole, end): blocks that no row
// visits are stepped over, and of the blocks without a hidden pair the keys within `whole` need no test.
fn blocks_span(rows: Rows, start: u32, visible: vec2<u32>, whole: vec2<u32>) -> vec4<u32> {
  var key = start;
  while (key < visible.y) {
    let block = key / params.block_keys;
    let end = min((block + 1u) * params.block_keys, visible.y);
    let bits = rows_bits(rows, block);
    if (bits == 3u) {
      let whole_start = clamp(whole.x, key, end);
      return vec4<u32>(key, whole_start, clamp(whole.y, whole_start, end), end);
    }
    if (bits == 1u) { return vec4<u32>(key, end, end, end); }
    key = end;
  }
  return visible.yyyy;
}
