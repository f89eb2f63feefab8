// tanh to about 2 ulp everywhere. The built-in overflows to NaN on some drivers from |x| = 45 on and is inexact near 0
// on others. Below 0.625 a polynomial (Cephes), else 1 - 2 / (e^(2|x|) + 1), which does not cancel there; the argument
// is bounded where tanh is 1 to f32. NaN is kept by its bits, since min() may drop it.
fn tanh4(x: vec4<f32>) -> vec4<f32> {
  let a = min(abs(x), vec4<f32>(15.0));
  let z = a * a;
  let tail = fma(fma(vec4<f32>(-5.70498872745e-3), z, vec4<f32>(2.06390887954e-2)), z, vec4<f32>(-5.37397155531e-2));
  let series = fma(fma(tail, z, vec4<f32>(1.33314422036e-1)), z, vec4<f32>(-3.33332819422e-1));
  let small = fma(series * z, a, a);
  let big = 1.0 - 2.0 / (exp2(a * (2.0 * LOG2_E)) + 1.0);
  let t = select(big, small, a < vec4<f32>(0.625));
  let signed = select(t, -t, x < vec4<f32>(0.0));
  return select(signed, x, (bitcast<vec4<u32>>(x) & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x7f800000u));
}
