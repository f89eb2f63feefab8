// Query rows of heads that share k and v, numbered through as if they were one head's: `split_forward_tile` where rows
// of a single head would leave most of a tile empty, as when a token is decoded.
//
//   q [batch, heads_q, seq_q, dim_qk], k [batch, heads_kv, seq_kv, dim_qk],
//   v [batch, heads_kv, seq_kv, dim_v]
//   -> states [batch, heads_q, seq_q, split_n] (m, l),
//      partials [batch, heads_q, seq_q, split_n, dim_v / 4]
//
//   for each tile of KEYS keys of the share that some row may look at: m, l, O as in `fused_forward_tile`
//   states = (m, l), partials = O
//
// Workgroup (x, y, z) = (OWNED of the group's rows, (batch, head of k) pair, share). The group's rows are numbered
// query row * group + head, so that neighbours see the same keys. Where it departs from `split_forward_tile`:
//  1. `row0`, `row_end` and the rows of `tile_*` are such numbers; only `tile_position`, `group_rows_q` and
//     `tile_part`, which are generated, take them apart. `rows` has query rows, and the group's first head.

@compute @workgroup_size(LANES, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let batch = params.batch0 + workgroup.y / params.head_n;
  let head = (params.head0 + workgroup.y % params.head_n) * params.group;
  let row0 = workgroup.x * OWNED;
  let last = min(row0 + OWNED - 1u, group_last());
  let rows = rows_of(batch, head, params.row0 + row0 / params.group, params.row0 + last / params.group);
  let stored = max(stored_end(rows, params.row0 + params.row_n), params.row0) - params.row0;
  let first = partial_index(batch, head, params.row0, workgroup.z);
  over_share(rows, lane, row0, stored * params.group, workgroup.z, first);
}
