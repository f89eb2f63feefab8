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
// correct and dQ is the only sum. Workgroups as there. 2 * (2 * dim_qk + dim_v) FLOP a pair.

@compute @workgroup_size(LANES, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let own = own_rows(workgroup);
  let place = place_of(lane, own.row0);
  over_keys(own, place);
  tile_store(place, own.row_end, own.rows.q_len, d_q_origin(own));
}
