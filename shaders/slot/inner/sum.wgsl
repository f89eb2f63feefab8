// sum_c w[c] f(a (q[i, c] + k[j, c])), w = score_v and a = inner_scale: the additive score. f is tanh (slot `tanh`) or
// a leaky ReLU (slot `leaky_relu`): `inner_activate`.
//
// With tanh, per pair and channel, about 20 FLOP where a product has 2, so it is bound by arithmetic everywhere.
fn inner_sum_4(q: vec4<f32>, k: vec4<f32>, w: vec4<f32>, sum: vec4<f32>) -> vec4<f32> {
  return fma(w, inner_activate(params.inner_scale * (q + k)), sum);
}

// Weights c..c+3 of a head, zeros past dim_qk.
fn inner_weights(head: u32, c: u32) -> vec4<f32> {
  var w = vec4<f32>(0.0);
  let first = params.aux_score_v + head * params.score_v_stride + c;
  for (var i = 0u; i < 4u; i += 1u) {
    if (c + i < params.dim_qk) { w[i] = bitcast<f32>(aux_word(first + i)); }
  }
  return w;
}
