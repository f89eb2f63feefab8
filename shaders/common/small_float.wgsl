// Codes of 8-bit and 4-bit floating-point numbers, each nearest to x, ties to even; magnitudes beyond the largest
// become the largest. Infinity is NaN in e4m3, which has none.

// The sign of x at bit `place`.
fn sign_at(x: vec4<f32>, place: u32) -> vec4<u32> {
  return (bitcast<vec4<u32>>(x) >> vec4<u32>(31u)) << vec4<u32>(place);
}

fn codes_e4m3(x: vec4<f32>) -> vec4<u32> {
  let bits = bitcast<vec4<u32>>(x) & vec4<u32>(0x7fffffffu);
  let a = min(bitcast<vec4<f32>>(min(bits, vec4<u32>(0x7f7fffffu))), vec4<f32>(448.0));
  let word = bitcast<vec4<u32>>(a);
  let odd = (word >> vec4<u32>(20u)) & vec4<u32>(1u);
  // 120 is 127 less the bias.
  let normal = ((word + vec4<u32>(0x7ffffu) + odd) >> vec4<u32>(20u)) - vec4<u32>(960u);
  let finite = select(normal, vec4<u32>(round(a * 512.0)), a < vec4<f32>(0.015625));
  return select(finite, vec4<u32>(0x7fu), bits >= vec4<u32>(0x7f800000u)) | sign_at(x, 7u);
}

fn codes_e5m2(x: vec4<f32>) -> vec4<u32> {
  let bits = bitcast<vec4<u32>>(x) & vec4<u32>(0x7fffffffu);
  let a = min(bitcast<vec4<f32>>(min(bits, vec4<u32>(0x7f7fffffu))), vec4<f32>(57344.0));
  let word = bitcast<vec4<u32>>(a);
  let odd = (word >> vec4<u32>(21u)) & vec4<u32>(1u);
  // 112 is 127 less the bias.
  let normal = ((word + vec4<u32>(0xfffffu) + odd) >> vec4<u32>(21u)) - vec4<u32>(448u);
  let finite = select(normal, vec4<u32>(round(a * 65536.0)), a < vec4<f32>(0.00006103515625));
  let special = select(vec4<u32>(0x7eu), vec4<u32>(0x7cu), bits == vec4<u32>(0x7f800000u));
  return select(finite, special, bits >= vec4<u32>(0x7f800000u)) | sign_at(x, 7u);
}

// NaN and infinity are the block's scale's to say.
fn codes_e2m1(x: vec4<f32>) -> vec4<u32> {
  let bits = bitcast<vec4<u32>>(x) & vec4<u32>(0x7fffffffu);
  let a = min(bitcast<vec4<f32>>(min(bits, vec4<u32>(0x7f7fffffu))), vec4<f32>(6.0));
  let word = bitcast<vec4<u32>>(a);
  let odd = (word >> vec4<u32>(22u)) & vec4<u32>(1u);
  // 126 is 127 less the bias.
  let normal = ((word + vec4<u32>(0x1fffffu) + odd) >> vec4<u32>(22u)) - vec4<u32>(252u);
  return select(normal, vec4<u32>(round(a * 2.0)), a < vec4<f32>(1.0)) | sign_at(x, 3u);
}
