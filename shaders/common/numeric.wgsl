// Numbers that every kernel needs, and tests on bit patterns: fast-math compilers may assume away NaN and infinity,
// but not integers.
const LOG2_E: f32 = 1.4426950408889634;
// The lowest finite f32: "nothing yet" in a running maximum, and a visible score of -inf, which must not read
// as masked.
const LOWEST: f32 = -3.4028234663852886e38;
// The next above it: what is left of a score that is LOWEST, since masks are made of that number too.
const LOWEST_SCORE: f32 = -3.4028232635611926e38;
// No alignment offset, window or sequence is larger: sums of four of them stay within i32.
const MAX_OFFSET: i32 = 268435456;

// The score of a masked key, -inf. Taken from a run-time value: compilers refuse or fold a constant one.
fn masked() -> f32 {
  return bitcast<f32>(params.minus_infinity);
}

fn is_masked(s: f32) -> bool {
  return bitcast<u32>(s) == 0xff800000u;
}

// Taken from a run-time value as well.
fn not_a_number() -> f32 {
  return bitcast<f32>(params.minus_infinity | 0x00400000u);
}

fn is_nan(s: f32) -> bool {
  return (bitcast<u32>(s) & 0x7fffffffu) > 0x7f800000u;
}

// e^x, which keeps NaN: some drivers' exp2 gives a number for it.
fn exp_kept(x: f32) -> f32 {
  return select(exp2(x * LOG2_E), x, is_nan(x));
}

fn masked4(s: vec4<f32>) -> vec4<bool> {
  return bitcast<vec4<u32>>(s) == vec4<u32>(0xff800000u);
}

fn is_finite(s: f32) -> bool {
  return (bitcast<u32>(s) & 0x7f800000u) != 0x7f800000u;
}

// Weights as staged kernels hand them on: -0 says that a key has no part in the sum, so that its v must not
// be met; 0 is a weight like any other. By bits, and those from a run-time value: Mesa makes `select(1.0,
// -0.0, c)` of constants a 0.
fn weights_of_parts(w: vec4<f32>, none: vec4<bool>) -> vec4<f32> {
  let bits = bitcast<vec4<u32>>(w);
  let weight = select(bits, vec4<u32>(0u), bits == vec4<u32>(0x80000000u));
  return bitcast<vec4<f32>>(select(weight, vec4<u32>(params.minus_infinity & 0x80000000u), none));
}

fn has_no_part(w: f32) -> bool {
  return bitcast<u32>(w) == 0x80000000u;
}

// Whether any of four values is NaN or infinite.
fn any_special(v: vec4<f32>) -> bool {
  let exponent = vec4<u32>(0x7f800000u);
  return any((bitcast<vec4<u32>>(v) & exponent) == exponent);
}

