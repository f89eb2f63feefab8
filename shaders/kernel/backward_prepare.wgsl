// Backward: the gradient of q or k as the caller has it, from that of the copy that `prepare` made.
//
//   q (x): rows [batch, heads, rows, params.dim_source] in any type and strides, k (d): gradients of the copy [batch,
//     heads, rows, dim_qk], f32 -> o, as x; row_sums [batch, heads, rows]: the part of each row in its head's factor
//
//   y = turned(x)
//   general: e = W d
//   cosine:  e = factor (d - y <y, d> / |y|^2) / |y|, and where |y| < eps: factor d / eps
//   o = e turned back
//
// Invocation = one row; workgroup (x, y) = (64 rows, (batch, head) pair), as in `prepare`. A row that passes nothing on
// (d = 0) has gradient 0 whatever it holds.

struct Prepared {
  // Where the row starts in q and in k.
  at: u32,
  d_at: u32,
  angle: u32,
  factor: f32,
  // <y, d> / |y|^2
  along: f32,
}

// Channel c of e.
fn shaped(row: Prepared, c: u32) -> f32 {
  if (PROJECTED) {
    let w = params.aux_score_matrix + c * params.dim_qk;
    var sum = 0.0;
    for (var i = 0u; i < params.dim_qk; i += 1u) {
      sum = fma(bitcast<f32>(aux_word(w + i)), k_load4(row.d_at + i, 1u).x, sum);
    }
    return sum;
  }
  let d = k_load4(row.d_at + c, 1u).x;
  if (!NORMALIZED) { return d; }
  return row.factor * fma(-row.along, turned(row.at, c, row.angle), d);
}

// Channel c of e turned back: by the same angle with the other sign.
fn turned_back(row: Prepared, c: u32) -> f32 {
  let e = shaped(row, c);
  if (!ROTARY || row.angle == NOT_TURNED || c >= params.rotary_dim) { return e; }
  let turn = turn_of(c);
  let other = shaped(row, turn.partner);
  let cosine = rotary_word(params.aux_rotary_cos + row.angle + turn.pair);
  let sine = rotary_word(params.aux_rotary_sin + row.angle + turn.pair);
  return fma(e, cosine, select(-other, other, turn.first) * sine);
}

@compute @workgroup_size(64, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let i = workgroup.x * 64u + lane;
  if (i >= params.row_n) { return; }
  let batch = workgroup.y / params.head_n;
  let head = workgroup.y % params.head_n;
  let sums_at = (batch * params.head_n + head) * params.row_n + i;
  if (i >= rows_held(batch)) {
    row_sums_store(sums_at, 0.0);
    return;
  }
  let at = params.q_base + q_origin(batch) + head * params.q_stride_head + i * params.q_stride_row;
  let d_at = params.k_base + k_origin(batch) + head * params.k_stride_head + i * params.k_stride_row;
  let out = params.o_base + o_origin(batch) + head * params.o_stride_head + i * params.o_stride_row;
  var row = Prepared(at, d_at, angle_of(batch, i), 1.0, 0.0);

  var nothing = true;
  for (var c = 0u; c < params.dim_qk; c += 1u) { nothing = nothing && k_load4(d_at + c, 1u).x == 0.0; }
  var part = 0.0;
  if (NORMALIZED && !nothing) {
    var squares = 0.0;
    var product = 0.0;
    for (var c = 0u; c < params.dim_qk; c += 1u) {
      let y = turned(at, c, row.angle);
      squares = fma(y, y, squares);
      product = fma(y, k_load4(d_at + c, 1u).x, product);
    }
    let norm = sqrt(squares);
    // A row that is divided by eps is divided by a constant. max() may drop NaN.
    let short = norm < params.norm_eps;
    row.factor = 1.0 / select(norm, params.norm_eps, short);
    row.along = select(product / squares, 0.0, short);
    part = product * row.factor;
    if (HEAD_SCALE) { row.factor *= bitcast<f32>(aux_word(params.aux_head_scale + head)); }
  }
  for (var c = 0u; c < params.dim_source; c += 4u) {
    let n = min(params.dim_source - c, 4u);
    var v = vec4<f32>(0.0);
    for (var j = 0u; j < n && !nothing; j += 1u) { v[j] = turned_back(row, c + j); }
    o_store4(out + c, n, v);
  }
  row_sums_store(sums_at, part);
}
