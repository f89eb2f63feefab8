// 4-bit integers, the lower index in the lower half of a byte; scales of 32 channels each are applied by who calls.
fn load_int4_4(halfword: u32) -> vec4<f32> {
  let high = vec4<u32>(halfword << 28u, halfword << 24u, halfword << 20u, halfword << 16u);
  return vec4<f32>(bitcast<vec4<i32>>(high) >> vec4<u32>(28u));
}

// The scale of block `i` from the word that holds it and its neighbour: bfloat16, the even block in the lower half.
fn load_int4_scale(word: u32, i: u32) -> f32 {
  return bitcast<f32>(select(word << 16u, word & 0xffff0000u, (i & 1u) == 1u));
}
