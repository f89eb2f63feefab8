// Joins the shares of `split_forward`.
//
//   states [batch, heads_q, seq_q, split_n] (m, l), partials [..., dim_v / 4]
//   -> o [batch, heads_q, seq_q, dim_v], lse
//
//   M = max_i m_i;  L = sum_i l_i exp(m_i - M);  o = sum_i o_i exp(m_i - M) / L;  lse = M + ln L
//
// Workgroup (x, y) = (query row, (batch, head) pair), invocations side by side along o. Bound by
// reading the partials. Where it departs from that:
//  1. Shares are joined in their order, so that the bits of a row are always the same.
//  2. Shares that saw nothing (l = 0) change nothing, whatever their partials hold.
//  3. The sink counts once, after all shares (`row_total`).

@compute @workgroup_size(32, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let batch = params.batch0 + workgroup.y / params.head_n;
  let head = params.head0 + workgroup.y % params.head_n;
  let row = params.row0 + workgroup.x;
  let rows = rows_of(batch, head, row, row);
  if (row >= stored_end(rows, params.row0 + params.row_n)) { return; }
  let first = ((batch * params.heads_q + head) * params.seq_q + row) * params.split_n;
  var seen = normalize_empty();
  for (var i = first; i < first + params.split_n; i += 1u) {
    // Not `!=`, which drops NaN in some translations.
    if (states[i].y == 0.0) { continue; }
    seen.m = normalize_peak(seen.m, states[i].x);
  }
  for (var i = first; i < first + params.split_n; i += 1u) {
    if (states[i].y == 0.0) { continue; }
    seen.l = fma(states[i].y, normalize_rescale(states[i].x, seen.m), seen.l);
  }
  let total = row_total(rows, row, seen);
  if (LSE && lane == 0u) { lse_store(lse_index(rows, row), normalize_lse(total)); }
  let scale = row_scale(rows, row, seen, total);
  let empty = row_empty(rows, row, seen);
  let columns = (params.dim_v + 3u) / 4u;
  let at = params.o_base + o_origin(batch) + head * params.o_stride_head + row * params.o_stride_row;
  for (var c = lane; c < columns; c += 32u) {
    var sum = vec4<f32>(0.0);
    for (var i = first; i < first + params.split_n; i += 1u) {
      let state = states[i];
      if (state.y == 0.0) { continue; }
      sum = fma(partials[i * columns + c], vec4<f32>(normalize_rescale(state.x, seen.m)), sum);
    }
    o_store4(at + 4u * c, min(params.dim_v - 4u * c, 4u), select(sum * scale, vec4<f32>(0.0), empty));
  }
}
