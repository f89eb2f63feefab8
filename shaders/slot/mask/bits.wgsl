// mask[b, h, i, j]: one bit each, 32 to a word from the lowest, 1 = attend; strides are 0 along broadcast dimensions.
fn mask_bits(p: Position) -> bool {
  let i = params.mask_base + p.batch * params.bits_stride_batch + p.head * params.bits_stride_head
    + p.row * params.bits_stride_row + p.key * params.bits_stride_key;
  return ((mask[i >> 5u] >> (i & 31u)) & 1u) != 0u;
}

fn mask_bits_range(rows: Rows, keys: vec2<i32>) -> vec2<i32> {
  return keys;
}

fn mask_bits_whole(rows: Rows, keys: vec2<i32>) -> vec2<i32> {
  return vec2<i32>(0);
}
