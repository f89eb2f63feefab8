// binary16, two to a word, the lower index in the lower half. Unpacked in integers: unpack2x16float is itself a
// device capability, and drivers differ in what they make of subnormals.
fn f16_values(h: vec4<u32>) -> vec4<f32> {
  let magnitude = h & vec4<u32>(0x7fffu);
  // Normal range: rebias the exponent (15 -> 127). Below 2^-14: the significand counts units of 2^-24.
  let normal = bitcast<vec4<f32>>((magnitude << vec4<u32>(13u)) + vec4<u32>(0x38000000u));
  let tiny = vec4<f32>(magnitude) * 5.9604644775390625e-8;
  let special = bitcast<vec4<f32>>((magnitude << vec4<u32>(13u)) | vec4<u32>(0x7f800000u));
  let finite = select(normal, tiny, magnitude < vec4<u32>(0x400u));
  let value = select(finite, special, magnitude >= vec4<u32>(0x7c00u));
  return bitcast<vec4<f32>>(bitcast<vec4<u32>>(value) | ((h & vec4<u32>(0x8000u)) << vec4<u32>(16u)));
}

fn load_f16_packed_4(word: vec2<u32>) -> vec4<f32> {
  return f16_values(vec4<u32>(word.x & 0xffffu, word.x >> 16u, word.y & 0xffffu, word.y >> 16u));
}

fn load_f16_packed_1(word: u32, i: u32) -> f32 {
  return f16_values(vec4<u32>((word >> ((i & 1u) * 16u)) & 0xffffu)).x;
}
