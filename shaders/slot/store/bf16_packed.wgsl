// bfloat16, two to a word: the upper half of a binary32, rounded to nearest even; NaN stays NaN.
fn bf16_bits(v: f32) -> u32 {
  let bits = bitcast<u32>(v);
  let rounded = (bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u;
  return select(rounded, (bits >> 16u) | 0x40u, (bits & 0x7fffffffu) > 0x7f800000u);
}

fn store_bf16_packed_4(v: vec4<f32>) -> vec2<u32> {
  return vec2<u32>(bf16_bits(v.x) | (bf16_bits(v.y) << 16u), bf16_bits(v.z) | (bf16_bits(v.w) << 16u));
}

fn store_bf16_packed_1(v: f32) -> u32 {
  return bf16_bits(v);
}
