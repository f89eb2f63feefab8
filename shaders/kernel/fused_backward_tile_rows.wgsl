// Fused backward pass on tiles, behind the delta: the gradient of q, OWNED rows by KEYS keys of one head by LANES
// invocations, all products register-blocked.
//
//   q, d_o, states [batch, heads_q, seq_q, ..], k, v [batch, heads_kv, seq_kv, ..]
//   -> d_q (o), shift - c and 1 / l in the row's states
//
//   for each tile of KEYS keys that some row may look at:
//     X = Q K^T;  Y = dO V^T                         OWNED x KEYS each, by chunks of channels
//     W, dS, dX of each pair, l, e and c as in `fused_backward_rows`
//     dQ = dQ + dX K;  Z = Z + (W * slopes) K        32 keys of dX and of W at a time, by chunks of k
//   (dQ - c Z) / l, shift - c, 1 / l
//
// Workgroup (x, y) = (block of OWNED rows, the last one first, (batch, head) pair). Products, sums and workgroup memory
// are those of `fused_forward_tile`, with another product; there too are the reasons for what is hidden, what is not
// visited and what is not tested. 2 * (3 * dim_qk + dim_v) FLOP a pair. Without the sums dQ and Z, where
// `fused_backward_tile_queries` or nobody makes the gradient of q: 2 * (dim_qk + dim_v).

@compute @workgroup_size(LANES, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let own = own_rows(workgroup);
  let place = place_of(lane, own.row0);
  over_keys(own, place);
  gather_l(place);
  var l = vec4<f32>(0.0);
  if (lane < OWNED / 4u) { l = tile_l(place); }
  gather_e(place);
  if (lane < OWNED / 4u) {
    let row = own.row0 + lane * 4u;
    let ends = own_ends(own.rows, row, own.row_end, l, tile_e(place));
    sh[0][0][lane] = ends.scale;
    sh[0][1][lane] = ends.left;
  }
  workgroupBarrier();
  tile_correct(place);
  tile_store(place, own.row_end, own.rows.q_len, d_q_origin(own));
}
