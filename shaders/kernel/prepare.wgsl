// q or k on its way to a score: rotated by position, then projected or brought to length 1.
//
//   binding q: rows [batch, heads, rows, params.dim_source] in any type and strides -> o [batch, heads, rows, dim_qk],
//   f32; packed rows [total, heads, ..] -> o [heads, total, dim_qk]
//
// Invocation = one row; workgroup (x, y) = (64 rows, (batch, head) pair). Bound by bandwidth, but for the projection of
// the general score, whose matrix is read at uniform addresses.

// Columns c..c+3 of the row times score_matrix [dim_source, dim_qk].
fn projected(at: u32, c: u32, angle: u32) -> vec4<f32> {
  var sum = vec4<f32>(0.0);
  for (var e = 0u; e < params.dim_source; e += 1u) {
    let x = turned(at, e, angle);
    let w = params.aux_score_matrix + e * params.dim_qk;
    for (var i = 0u; i < 4u; i += 1u) {
      sum[i] = fma(x, bitcast<f32>(aux_word(w + min(c + i, params.dim_qk - 1u))), sum[i]);
    }
  }
  return sum;
}

@compute @workgroup_size(64, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let row = workgroup.x * 64u + lane;
  let batch = workgroup.y / params.head_n;
  let head = workgroup.y % params.head_n;
  if (row >= rows_held(batch)) { return; }
  let at = params.q_base + q_origin(batch) + head * params.q_stride_head + row * params.q_stride_row;
  let out = params.o_base + o_origin(batch) + head * params.o_stride_head + row * params.o_stride_row;
  let angle = angle_of(batch, row);

  var factor = 1.0;
  if (NORMALIZED) {
    var squares = 0.0;
    for (var c = 0u; c < params.dim_qk; c += 1u) {
      let x = turned(at, c, angle);
      squares = fma(x, x, squares);
    }
    factor = 1.0 / max(sqrt(squares), params.norm_eps);
    // max() may drop NaN.
    factor = select(factor, squares, is_nan(squares));
    if (HEAD_SCALE) { factor *= bitcast<f32>(aux_word(params.aux_head_scale + head)); }
  }
  for (var c = 0u; c < params.dim_qk; c += 4u) {
    let n = min(params.dim_qk - c, 4u);
    var v = vec4<f32>(0.0);
    if (PROJECTED) {
      v = projected(at, c, angle);
    } else {
      for (var i = 0u; i < n; i += 1u) { v[i] = turned(at, c + i, angle); }
    }
    o_store4(out + c, n, v * factor);
  }
}
