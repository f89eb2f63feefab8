// mask[b, h, i, j]: one byte each, four to a word, nonzero = attend; strides are 0 along broadcast dimensions.
fn mask_dense(p: Position) -> bool {
  let i = params.mask_base + p.batch * params.mask_stride_batch + p.head * params.mask_stride_head
    + p.row * params.mask_stride_row + p.key * params.mask_stride_key;
  return ((mask[i >> 2u] >> ((i & 3u) * 8u)) & 0xffu) != 0u;
}

fn mask_dense_range(rows: Rows, keys: vec2<i32>) -> vec2<i32> {
  return keys;
}

fn mask_dense_whole(rows: Rows, keys: vec2<i32>) -> vec2<i32> {
  return vec2<i32>(0);
}
