// c * tanh(s / c). tanh(x) = sign(x) * (1 - 2 / (e^(2|x|) + 1)): the built-in one overflows to NaN on some
// drivers from |x| = 45 on, so the argument is bounded where tanh is 1 to f32; near 0, where that form cancels,
// the odd series x - x^3/3 + 2x^5/15 is exact to f32 (|x| < 0.1: the next term is below 1.4e-8 of x).
fn softcap_tanh(x: f32) -> f32 {
  let a = min(abs(x), 15.0);
  let big = 1.0 - 2.0 / (exp2(a * (2.0 * LOG2_E)) + 1.0);
  let x2 = a * a;
  let small = a * (1.0 + x2 * (-0.33333334 + x2 * (0.13333334 - x2 * 0.053968254)));
  let t = select(big, small, a < 0.1);
  return select(t, -t, x < 0.0);
}

fn score_softcap(s: f32, p: Position) -> f32 {
  // NaN must stay NaN: min() above may drop it.
  return select(params.softcap * softcap_tanh(s / params.softcap), s, is_nan(s));
}
