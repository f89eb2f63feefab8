// 8-bit floating point with 5 bits of exponent, four to a word, the lower index in the lower byte; a scale is applied
// by who calls.
fn load_e5m2_4(word: u32) -> vec4<f32> {
  let byte = vec4<u32>(word, word >> 8u, word >> 16u, word >> 24u) & vec4<u32>(0xffu);
  let magnitude = byte & vec4<u32>(0x7fu);
  // Normal range: rebias the exponent (15 -> 127). Below 2^-14: the significand counts units of 2^-16.
  let normal = bitcast<vec4<f32>>((magnitude << vec4<u32>(21u)) + vec4<u32>(0x38000000u));
  let finite = select(normal, vec4<f32>(magnitude) * 0.0000152587890625, magnitude < vec4<u32>(4u));
  let special = (magnitude << vec4<u32>(21u)) | vec4<u32>(0x7f800000u);
  let value = select(bitcast<vec4<u32>>(finite), special, magnitude >= vec4<u32>(0x7cu));
  return bitcast<vec4<f32>>(value | ((byte & vec4<u32>(0x80u)) << vec4<u32>(24u)));
}

// The scale of a row from the word behind its channels.
fn load_e5m2_scale(word: u32, i: u32) -> f32 {
  return bitcast<f32>(word);
}
