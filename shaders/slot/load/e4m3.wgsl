// 8-bit floating point with 4 bits of exponent, four to a word, the lower index in the lower byte; a scale is applied
// by who calls.
fn load_e4m3_4(word: u32) -> vec4<f32> {
  let byte = vec4<u32>(word, word >> 8u, word >> 16u, word >> 24u) & vec4<u32>(0xffu);
  let magnitude = byte & vec4<u32>(0x7fu);
  // Normal range: rebias the exponent (7 -> 127). Below 2^-6: the significand counts units of 2^-9.
  let normal = bitcast<vec4<f32>>((magnitude << vec4<u32>(20u)) + vec4<u32>(0x3c000000u));
  let finite = select(normal, vec4<f32>(magnitude) * 0.001953125, magnitude < vec4<u32>(8u));
  let value = select(bitcast<vec4<u32>>(finite), vec4<u32>(0x7fc00000u), magnitude == vec4<u32>(0x7fu));
  return bitcast<vec4<f32>>(value | ((byte & vec4<u32>(0x80u)) << vec4<u32>(24u)));
}

// The scale of a row from the word behind its channels.
fn load_e4m3_scale(word: u32, i: u32) -> f32 {
  return bitcast<f32>(word);
}
