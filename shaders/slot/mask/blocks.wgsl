// Key j is visible to row i iff the table says that their block is visited; `common/blocks.wgsl` has the table.
fn mask_blocks(p: Position) -> bool {
  return (block_bits(p.batch, p.head, p.row / params.block_rows, p.key / params.block_keys) & 1u) != 0u;
}

fn mask_blocks_range(rows: Rows, keys: vec2<i32>) -> vec2<i32> {
  return keys;
}

fn mask_blocks_whole(rows: Rows, keys: vec2<i32>) -> vec2<i32> {
  return vec2<i32>(0);
}
