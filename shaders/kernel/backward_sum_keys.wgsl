// Stage 4 of the staged backward pass of additive scores, for k: x[i, j] = sum_c w[c] f(a (q[i, c] + k[j, c])).
//
//   scores (d_x) [block of rows, score_stride], q [batch, heads_q, seq_q, dim_qk], k [batch, heads_kv, seq_kv, dim_qk]
//   -> o, as k
//
//   o[j, c] = a sum over the group's heads of w[c] sum_i d_x[i, j] f'(a (q[i, c] + k[j, c]))
//
// Workgroup (x, y, z) = (16 channels, 16 keys, (batch, head of k) pair): an invocation owns four channels of a key and
// goes through heads and rows in order, those that see none of its keys stepped over by 64. Where rows come in several
// blocks the sums are carried from one to the next.

@compute @workgroup_size(64, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let heads = params.head_n / params.group;
  let batch = params.batch0 + workgroup.z / heads;
  let head_kv = params.head0 / params.group + workgroup.z % heads;
  let key = workgroup.y * 16u + (lane >> 2u);
  let column = workgroup.x * 16u + (lane & 3u) * 4u;
  let key_end = read_end(rows_of(batch, head_kv * params.group, 0u, 0u), params.seq_kv);
  if (key >= key_end || column >= params.dim_qk) { return; }

  let n = min(params.dim_qk - column, 4u);
  let k_at = params.k_base + k_origin(batch) + head_kv * params.k_stride_head + key * params.k_stride_row;
  let k4 = k_load4(k_at + column, n);
  var total = vec4<f32>(0.0);
  for (var head = head_kv * params.group; head < (head_kv + 1u) * params.group; head += 1u) {
    let pair = (batch - params.batch0) * params.head_n + head - params.head0;
    let q_at = params.q_base + q_origin(batch) + head * params.q_stride_head + column;
    var d = vec4<f32>(0.0);
    for (var tile = 0u; tile < params.row_n; tile += 64u) {
      let row0 = params.row0 + tile;
      let row_end = min(row0 + 64u, params.row0 + params.row_n);
      let rows = rows_of(batch, head, row0, row_end - 1u);
      let visible = key_range(rows);
      let seen = key >= visible.x && key < visible.y;
      let last = select(row0, stored_end(rows, row_end), seen);
      for (var row = row0; row < last; row += 1u) {
        let at = (pair * params.row_n + row - params.row0) * params.score_stride + key;
        let d_x = scores[at >> 2u][at & 3u];
        if (has_no_part(d_x)) { continue; }
        let x = params.inner_scale * (q_load4(q_at + row * params.q_stride_row, n) + k4);
        d = fma(vec4<f32>(d_x), inner_derivative(x), d);
      }
    }
    total = fma(inner_weights(head, column), d, total);
  }
  finish_key(workgroup.z, batch, head_kv, key, column, params.dim_qk, params.inner_scale * total);
}
