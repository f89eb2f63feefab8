// Fused backward pass on tiles, the last: the gradients of k and v, OWNED keys by KEYS rows of each head of a group by
// LANES invocations, all products register-blocked.
//
//   q, d_o, states [batch, heads_q, seq_q, ..], k, v [batch, heads_kv, seq_kv, ..] -> d_k (o), d_v
//
//   for each query head of the group, for each tile of KEYS rows of which some may look at the keys:
//     X = K Q^T;  Y = V dO^T                         OWNED x KEYS each, by chunks of channels
//     W, dX of each pair as in `fused_backward_keys`
//     dV = dV + W dO;  dK = dK + dX Q                32 rows of W and of dX at a time, by chunks of d_o and q
//
// Workgroup (x, y) = (block of OWNED keys, (batch, head of k and v) pair). Keys and rows have changed places: keys lie
// as rows do in `fused_forward_tile`, in strips of four. Heads and rows ascend, so the sums are the same in every run.
// 4 * (dim_qk + dim_v) FLOP a pair. Either gradient may be left to a dispatch of its own, of fewer registers: dK takes
// X, Y and its sum, dV X and its sum.

const NOT_VISITED: u32 = 0u;
const TESTED: u32 = 1u;
const WHOLE: u32 = 2u;

// What is to be done of a block of rows and keys.
fn visit_of(rows: Rows, keys: vec2<u32>) -> u32 {
  let visible = key_range(rows);
  if (visible.y <= keys.x || visible.x >= keys.y || !tile_visited(rows, keys)) { return NOT_VISITED; }
  let whole = whole_range(rows, visible);
  let all = rows.last - rows.first == KEYS - 1u && whole.x <= keys.x && whole.y >= keys.y && tile_whole(rows, keys);
  return select(TESTED, WHOLE, all);
}

@compute @workgroup_size(LANES, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let heads_kv = params.heads_q / params.group;
  let batch = workgroup.y / heads_kv;
  let head_kv = workgroup.y % heads_kv;
  let key0 = workgroup.x * OWNED;
  let first = rows_of(batch, head_kv * params.group, 0u, 0u);
  let key_end = read_end(first, params.seq_kv);
  let keys = vec2<u32>(key0, max(min(key0 + OWNED, key_end), key0 + 1u));
  let place = place_of(lane, key0);
  tile_begin(first, place);
  for (var head = head_kv * params.group; head < (head_kv + 1u) * params.group; head += 1u) {
    let origins = origins_of(batch, head);
    for (var row0 = 0u; row0 < first.q_len; row0 += KEYS) {
      let row_end = min(row0 + KEYS, first.q_len);
      let rows = rows_of(batch, head, row0, row_end - 1u);
      let visit = visit_of(rows, keys);
      if (visit == NOT_VISITED) { continue; }
      tile_products(rows, keys.y, origins, place, row0, key0);
      tile_incoming(rows, keys.y, origins, place, row0, key0);
      if (visit == TESTED) {
        tile_pairs_shown(rows, row_end, place, row0);
      } else {
        tile_pairs(rows, row_end, place, row0);
      }
      tile_weigh(rows, vec2<u32>(row0, row_end), origins, place, row0, visit == TESTED);
      tile_add(rows, vec2<u32>(row0, row_end), origins, place, row0, visit == TESTED);
    }
  }
  // Beyond their sequence's length nobody sees keys, whatever weights of 0 have met.
  let d_k_at = params.o_base + k_origin(batch) + head_kv * params.k_stride_head;
  tile_store(place, key_end, first.kv_len, d_k_at);
  let d_v_at = params.d_v_base + v_origin(batch) + head_kv * params.v_stride_head;
  tile_store_v(place, key_end, first.kv_len, d_v_at);
}
