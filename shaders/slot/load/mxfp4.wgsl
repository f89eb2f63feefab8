// e2m1: 0, 0.5, 1, 1.5, 2, 3, 4 and 6 with signs, the lower index in the lower half of a byte; scales of 32 channels
// each are applied by who calls.
fn load_mxfp4_4(halfword: u32) -> vec4<f32> {
  let nibble = vec4<u32>(halfword, halfword >> 4u, halfword >> 8u, halfword >> 12u) & vec4<u32>(15u);
  let magnitude = nibble & vec4<u32>(7u);
  // Normal range: rebias the exponent (1 -> 127).
  let normal = bitcast<vec4<f32>>((magnitude << vec4<u32>(22u)) + vec4<u32>(0x3f000000u));
  let value = select(normal, vec4<f32>(magnitude) * 0.5, magnitude < vec4<u32>(2u));
  return bitcast<vec4<f32>>(bitcast<vec4<u32>>(value) | ((nibble & vec4<u32>(8u)) << vec4<u32>(28u)));
}

// The scale of block `i` from the word that holds it and its neighbours: e8m0, the first of four in the lowest byte.
fn load_mxfp4_scale(word: u32, i: u32) -> f32 {
  let exponent = (word >> ((i & 3u) * 8u)) & 0xffu;
  let power = select(exponent << 23u, 0x00400000u, exponent == 0u);
  return bitcast<f32>(select(power, 0x7fc00000u, exponent == 0xffu));
}
