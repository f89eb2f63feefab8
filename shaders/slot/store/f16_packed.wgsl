// binary16, two to a word. Rounded here, in integers: pack2x16float leaves the rounding, and everything past
// the largest finite value, to the driver. Round to nearest even; overflow gives infinity; NaN stays NaN.
fn f16_bits(v: f32) -> u32 {
  let bits = bitcast<u32>(v);
  let sign = (bits >> 16u) & 0x8000u;
  let a = bits & 0x7fffffffu;
  // Normal range: rebias the exponent (127 -> 15) and round away 13 bits.
  let normal = (a - 0x38000000u + 0xfffu + ((a >> 13u) & 1u)) >> 13u;
  // Below 2^-14: the value in units of 2^-24, rounded to even by adding 2^23 in f32.
  let tiny = bitcast<u32>(bitcast<f32>(a) * 16777216.0 + 8388608.0) - 0x4b000000u;
  var h = select(normal, tiny, a < 0x38800000u);
  h = select(h, 0x7c00u, a >= 0x477ff000u);
  h = select(h, 0x7e00u, a > 0x7f800000u);
  return sign | h;
}

fn store_f16_packed_4(v: vec4<f32>) -> vec2<u32> {
  return vec2<u32>(f16_bits(v.x) | (f16_bits(v.y) << 16u), f16_bits(v.z) | (f16_bits(v.w) << 16u));
}

fn store_f16_packed_1(v: f32) -> u32 {
  return f16_bits(v);
}
