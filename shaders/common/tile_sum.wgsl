// The additive score on the register-blocked tile of common/tile.wgsl: its DEPTH channels from `depth` on.
fn tile_sum(acc: ptr<function, array<vec4<f32>, 16>>, head: u32, depth: u32, x: u32, y: u32) {
  let weights = params.aux_score_v + head * params.score_v_stride + depth;
  for (var d = 0u; d < min(DEPTH, params.dim_qk - depth); d += 1u) {
    let w = bitcast<f32>(aux_word(weights + d)) * vec4<f32>(1.0);
    let b0 = sh_b[d * 16u + x];
    let b1 = sh_b[d * 16u + 8u + x];
    for (var r = 0u; r < 8u; r += 1u) {
      let a = vec4<f32>(sh_a[d * 16u + (r >> 2u) * 8u + y][r & 3u]);
      (*acc)[r * 2u] = inner_sum_4(a, b0, w, (*acc)[r * 2u]);
      (*acc)[r * 2u + 1u] = inner_sum_4(a, b1, w, (*acc)[r * 2u + 1u]);
    }
  }
}
