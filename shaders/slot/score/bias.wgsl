// s + bias[b, h, i, j]; strides are 0 along broadcast dimensions. A bias of -inf masks, whatever s is.
fn score_bias(s: f32, p: Position) -> f32 {
  let b = bias[params.bias_base + p.batch * params.bias_stride_batch + p.head * params.bias_stride_head
    + p.row * params.bias_stride_row + p.key * params.bias_stride_key];
  return select(s + b, masked(), is_masked(b));
}
