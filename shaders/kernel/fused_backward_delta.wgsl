// Fused backward pass, first of three: what the others need of each row.
//
//   o (v), d_o [batch, heads_q, seq_q, dim_v], lse, d_lse [batch, heads_q, seq_q]
//   -> states [batch, heads_q, seq_q, 2]: lse and the shift d_lse - <d_o, o>; 0, for which the rows' kernel puts 1 / l,
//      and d_lse
//
// Since sum(w y) over a row's keys is <d_o, o>, whatever factors weights have, the gradient of a score is
// w (y - <d_o, o> + d_lse) and needs no sum over the row (FlashAttention-2, algorithm 2).
//
// Workgroup (x, y) = (64 rows, (batch, head) pair), an invocation each: read once, 8 * dim_v B a row.

@compute @workgroup_size(64, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let batch = workgroup.y / params.heads_q;
  let head = workgroup.y % params.heads_q;
  let row = workgroup.x * 64u + lane;
  let rows = rows_of(batch, head, row, row);
  if (row >= stored_end(rows, params.seq_q)) { return; }
  let at = o_origin(batch) + head * params.o_stride_head + row * params.o_stride_row;
  var sum = vec4<f32>(0.0);
  for (var c = 0u; c < params.dim_v; c += 4u) {
    let n = min(params.dim_v - c, 4u);
    sum = fma(d_o_load4(params.d_o_base + at + c, n), o_load4(params.o_base + at + c, n), sum);
  }
  let place = lse_index(rows, row);
  let mean = (sum.x + sum.y) + (sum.z + sum.w);
  let all_row = (batch * params.heads_q + head) * params.seq_q + row;
  let d_lse = d_lse_load(place);
  // Scores are LOWEST_SCORE at least, and a weight e^(s - lse) is 1 at most.
  let kept = lse[params.lse_base + place];
  states[2u * all_row] = vec2<f32>(select(max(kept, LOWEST_SCORE), kept, is_nan(kept)), d_lse - mean);
  states[2u * all_row + 1u] = vec2<f32>(0.0, d_lse);
}
