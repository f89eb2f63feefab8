// Shares of the keys, and where each leaves what it has of a row.

// The keys [x, y) of a share: of a fixed size counted from key 0, or an even part of the visible ones in whole tiles.
fn share_of(visible: vec2<u32>, split: u32) -> vec2<u32> {
  let first = visible.x / KEYS * KEYS;
  if (params.split_size > 0u) {
    let start = split * params.split_size;
    return vec2<u32>(max(start, first), min(start + params.split_size, visible.y));
  }
  let tiles = (visible.y - first + KEYS - 1u) / KEYS;
  let size = (tiles + params.split_n - 1u) / params.split_n * KEYS;
  let start = first + split * size;
  return vec2<u32>(start, min(start + size, visible.y));
}

// Where a row's share of the partial results is.
fn partial_index(batch: u32, head: u32, row: u32, split: u32) -> u32 {
  return ((batch * params.heads_q + head) * params.seq_q + row) * params.split_n + split;
}
