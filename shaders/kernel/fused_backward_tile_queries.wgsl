// Fused backward pass on tiles, where each gradient has a kernel of its own: the gradient of q, OWNED rows by KEYS keys
// of one head by LANES invocations, all products register-blocked.
//
//   q, d_o, states [batch, heads_q, seq_q, ..], k, v [batch, heads_kv, seq_kv, ..] -> d_q (o)
//
//   for each tile of KEYS keys that some row may look at:
//     X = Q K^T;  Y = dO V^T                         OWNED x KEYS each, by chunks of channels
//     W, dX of each pair as in `fused_backward_keys`
//     dQ = dQ + dX K                                 32 keys of dX at a time, by chunks of k
//
// `fused_backward_tile_rows` has gone over the same pairs, for shift - c and 1 / l alone, so that nothing is left to
// correct and dQ is the only sum. Workgroups as there. 2 * (2 * dim_qk + dim_v) FLOP a pair, and there
// 2 * (dim_qk + dim_v).

@compute @workgroup_size(LANES, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let batch = workgroup.y / params.heads_q;
  let head = workgroup.y % params.heads_q;
  // The last rows first: under a causal mask they have most to do, and what ends last should be little.
  let row0 = ((params.seq_q + OWNED - 1u) / OWNED - 1u - workgroup.x) * OWNED;
  let row_end = stored_end(rows_of(batch, head, row0, row0), params.seq_q);
  let rows = rows_of(batch, head, row0, max(min(row0 + OWNED, row_end), row0 + 1u) - 1u);
  let visible = key_range(rows);
  let whole = whole_range(rows, visible);
  let origins = origins_of(batch, head);
  let place = place_of(lane, row0);
  tile_begin(rows, place);
  for (var key0 = next_tile(rows, visible.x / KEYS * KEYS, visible); key0 < visible.y;
      key0 = next_tile(rows, key0 + KEYS, visible)) {
    let span = vec2<u32>(key0, min(key0 + KEYS, visible.y));
    let tested = key0 < whole.x || key0 + KEYS > whole.y || !tile_whole(rows, span);
    tile_products(rows, visible.y, origins, place, row0, key0);
    tile_incoming(rows, visible.y, origins, place, row0, key0);
    if (tested) {
      tile_pairs_shown(rows, visible.y, place, key0);
    } else {
      tile_pairs(rows, visible.y, place, key0);
    }
    tile_add(rows, visible, origins, place, key0, tested);
  }
  tile_store(place, row_end, rows.q_len, params.o_base + q_origin(batch) + head * params.q_stride_head);
}
