// More query rows than `split_forward` takes, too few to keep a device busy: a tile of OWNED rows as in
// `fused_forward_tile` takes a share of the keys; `split_merge` joins the shares.
//
//   q [batch, heads_q, seq_q, dim_qk], k [batch, heads_kv, seq_kv, dim_qk],
//   v [batch, heads_kv, seq_kv, dim_v]
//   -> states [batch, heads_q, seq_q, split_n] (m, l),
//      partials [batch, heads_q, seq_q, split_n, dim_v / 4]
//
//   for each tile of KEYS keys of the share that some row may look at: m, l, O as in `fused_forward_tile`
//   states = (m, l), partials = O
//
// Workgroup (x, y, z) = (block of OWNED rows, (batch, head) pair, share). Where it departs from the above:
//  1. Shares are whole tiles, so a row's bits depend on how many there are, or on their fixed size only.
//  2. A share without a visible key writes a sum of 0, and what it wrote of O is never read.

@compute @workgroup_size(LANES, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let batch = params.batch0 + workgroup.y / params.head_n;
  let head = params.head0 + workgroup.y % params.head_n;
  let block_end = params.row0 + params.row_n;
  let row0 = params.row0 + workgroup.x * OWNED;
  let rows = rows_of(batch, head, row0, min(row0 + OWNED, block_end) - 1u);
  let row_end = stored_end(rows, block_end);
  over_share(rows, lane, row0, row_end, workgroup.z, partial_index(batch, head, 0u, workgroup.z));
}
