// s + Gumbel noise: the largest of the sums is a draw from softmax(s) (Gumbel-max).
//
// The noise of (batch, head, row, key) is word key % 4 of philox (common/philox.wgsl) with the counter
// (row, key / 4, batch * heads_q + head, 0) and the seed as key: the same on every device and for every tiling.
fn gumbel_bits(p: Position) -> u32 {
  let counter = vec4<u32>(p.row, p.key >> 2u, p.batch * params.heads_q + p.head, 0u);
  return philox(counter, vec2<u32>(params.seed_low, params.seed_high))[p.key & 3u];
}

// -ln(-ln u), u = (bits / 2^9 + 1/2) / 2^23, which f32 holds exactly. Near u = 1 the inner logarithm is a series in 1 -
// u, since log is only absolutely exact there.
fn score_gumbel(s: f32, p: Position) -> f32 {
  let bits = gumbel_bits(p) >> 9u;
  let u = (f32(bits) + 0.5) * 1.1920928955078125e-7;
  let w = (f32(0x7fffffu - bits) + 0.5) * 1.1920928955078125e-7;
  let series = w * fma(w, fma(w, fma(w, fma(w, 0.2, 0.25), 0.33333333333), 0.5), 1.0);
  let e = select(-log(u), series, w < 0.03125);
  return select(s - log(e), s, is_masked(s));
}
