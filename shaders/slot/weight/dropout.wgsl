// Dropout: a weight is 0 with probability `rate` and multiplied with 1 / (1 - rate) otherwise, after it is normalised.
//
// A pair's lot is word key % 4 of philox (common/philox.wgsl) with the counter (row, key / 4, batch * heads_q + head,
// 1) and the seed as key: the same on every device, for every tiling, and in the gradients. Dropped where its upper 24
// bits are below rate * 2^24.
fn weight_dropout(p: Position) -> f32 {
  return weight_dropout_4(p)[p.key & 3u];
}

// Of the four keys of which p's is one, the first of them a multiple of 4.
fn weight_dropout_4(p: Position) -> vec4<f32> {
  let counter = vec4<u32>(p.row, p.key >> 2u, p.batch * params.heads_q + p.head, 1u);
  let bits = philox(counter, vec2<u32>(params.dropout_seed_low, params.dropout_seed_high));
  let dropped = (bits >> vec4<u32>(8u)) < vec4<u32>(params.dropout_below);
  return select(vec4<f32>(params.dropout_scale), vec4<f32>(0.0), dropped);
}
