// Stage 4 of the staged backward pass of additive scores, for q: x[i, j] = sum_c w[c] f(a (q[i, c] + k[j, c])).
//
//   scores (d_x) [block of rows, score_stride], q [batch, heads_q, seq_q, dim_qk], k [batch, heads_kv, seq_kv, dim_qk]
//   -> o, as q;
//     row_sums: each row's part in the gradient of w, [batch, heads_q, seq_q, dim_qk], or [batch, seq_q, heads_q,
//     dim_qk] where heads have weights of their own
//
//   o[i, c] = a w[c] sum_j d_x[i, j] f'(a (q[i, c] + k[j, c]))
//   row_sums[i, c] = sum_j d_x[i, j] f(a (q[i, c] + k[j, c]))
//
// Workgroup (x, y, z) = (16 channels, 16 rows, (batch, head) pair): an invocation owns four channels of a row and goes
// through the visible keys in order. No product: about 30 FLOP per pair and channel with tanh, so it is bound by
// arithmetic.

@compute @workgroup_size(64, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let batch = params.batch0 + workgroup.z / params.head_n;
  let head = params.head0 + workgroup.z % params.head_n;
  let first = params.row0 + workgroup.y * 16u;
  let row_end = params.row0 + params.row_n;
  let rows = rows_of(batch, head, first, min(first + 16u, row_end) - 1u);
  let visible = key_range(rows);
  let row = first + (lane >> 2u);
  let column = workgroup.x * 16u + (lane & 3u) * 4u;
  if (row >= row_end || column >= params.dim_qk) { return; }

  let n = min(params.dim_qk - column, 4u);
  let stored = row < stored_end(rows, row_end);
  let q_at = params.q_base + q_origin(batch) + head * params.q_stride_head + row * params.q_stride_row + column;
  let k_at = params.k_base + k_origin(batch) + (head / params.group) * params.k_stride_head + column;
  let q4 = q_load4(q_at, select(0u, n, stored));
  let base = (workgroup.z * params.row_n + row - params.row0) * params.score_stride;
  var d = vec4<f32>(0.0);
  var part = vec4<f32>(0.0);
  for (var key = visible.x; key < select(visible.x, visible.y, stored); key += 1u) {
    let d_x = scores[(base + key) >> 2u][key & 3u];
    if (has_no_part(d_x)) { continue; }
    let x = params.inner_scale * (q4 + k_load4(k_at + key * params.k_stride_row, n));
    d = fma(vec4<f32>(d_x), inner_derivative(x), d);
    part = fma(vec4<f32>(d_x), inner_activate(x), part);
  }
  row_parts_store(batch, head, row, column, n, part);
  if (stored) {
    let at = params.o_base + o_origin(batch) + head * params.o_stride_head + row * params.o_stride_row + column;
    o_store4(at, n, params.inner_scale * inner_weights(head, column) * d);
  }
}

fn row_parts_store(batch: u32, head: u32, row: u32, column: u32, n: u32, part: vec4<f32>) {
  var at = (batch * params.heads_q + head) * params.seq_q + row;
  if (params.score_v_stride > 0u) { at = (batch * params.seq_q + row) * params.heads_q + head; }
  for (var c = 0u; c < n; c += 1u) { row_sums_store(at * params.dim_qk + column + c, part[c]); }
}
