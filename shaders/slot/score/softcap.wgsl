// c * tanh(s / c). The built-in tanh overflows to NaN on some drivers from |x| = 45 on and is inexact near 0 on others.
// Below 0.625 a polynomial (Cephes, within 2 ulp), else 1 - 2 / (e^(2|x|) + 1), which does not cancel there; the
// argument is bounded where tanh is 1 to f32.
fn softcap_tanh(x: f32) -> f32 {
  let a = min(abs(x), 15.0);
  let z = a * a;
  let series = fma(fma(fma(fma(-5.70498872745e-3, z, 2.06390887954e-2), z, -5.37397155531e-2), z, 1.33314422036e-1), z,
    -3.33332819422e-1);
  let small = fma(series * z, a, a);
  let big = 1.0 - 2.0 / (exp2(a * (2.0 * LOG2_E)) + 1.0);
  let t = select(big, small, a < 0.625);
  return select(t, -t, x < 0.0);
}

fn score_softcap(s: f32, p: Position) -> f32 {
  // NaN must stay NaN: min() above may drop it.
  return select(params.softcap * softcap_tanh(s / params.softcap), s, is_nan(s));
}
