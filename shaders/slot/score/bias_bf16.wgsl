// s + bias[b, h, i, j] in bfloat16, two to a word; strides are 0 along broadcast dimensions. A bias of -inf masks,
// whatever s is.
fn score_bias_bf16(s: f32, p: Position) -> f32 {
  let i = params.bias_base + p.batch * params.bias_stride_batch + p.head * params.bias_stride_head
    + p.row * params.bias_stride_row + p.key * params.bias_stride_key;
  let word = bias[i >> 1u];
  let b = bitcast<f32>(select(word << 16u, word & 0xffff0000u, (i & 1u) == 1u));
  return select(s + b, masked(), is_masked(b));
}
