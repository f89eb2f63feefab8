// bfloat16, two to a word, the lower index in the lower half: the upper half of a binary32.
fn load_bf16_packed_4(word: vec2<u32>) -> vec4<f32> {
  return bitcast<vec4<f32>>(vec4<u32>(word.x << 16u, word.x & 0xffff0000u, word.y << 16u, word.y & 0xffff0000u));
}

fn load_bf16_packed_1(word: u32, i: u32) -> f32 {
  return bitcast<f32>(select(word << 16u, word & 0xffff0000u, (i & 1u) == 1u));
}
