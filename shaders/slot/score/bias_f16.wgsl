// s + bias[b, h, i, j] in binary16, two to a word; strides are 0 along broadcast dimensions. A bias of -inf masks,
// whatever s is.
fn score_bias_f16(s: f32, p: Position) -> f32 {
  let i = params.bias_base + p.batch * params.bias_stride_batch + p.head * params.bias_stride_head
    + p.row * params.bias_stride_row + p.key * params.bias_stride_key;
  let h = (bias[i >> 1u] >> ((i & 1u) * 16u)) & 0xffffu;
  // In integers, as drivers differ in what they make of subnormals.
  let magnitude = h & 0x7fffu;
  let normal = bitcast<f32>((magnitude << 13u) + 0x38000000u);
  let finite = select(normal, f32(magnitude) * 5.9604644775390625e-8, magnitude < 0x400u);
  let special = bitcast<f32>((magnitude << 13u) | 0x7f800000u);
  let value = bitcast<u32>(select(finite, special, magnitude >= 0x7c00u));
  let b = bitcast<f32>(value | ((h & 0x8000u) << 16u));
  return select(s + b, masked(), is_masked(b));
}
