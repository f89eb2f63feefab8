// Fused attention without any device feature; `common/fused_rows.wgsl` has the algorithm.
//
//   q [batch, heads_q, seq_q, dim_qk], k [batch, heads_kv, seq_kv, dim_qk], v [batch, heads_kv, seq_kv, dim_v]
//   -> o [batch, heads_q, seq_q, dim_v], lse [batch, heads_q, seq_q]
//
// Workgroup (x, y) = (block of LANES * ROWS rows, (batch, head) pair). 2 * (dim_qk + dim_v) FLOP per row and key
// against (dim_qk + dim_v) elements per workgroup and key: bound by arithmetic where uniform loads are cheap.

// Whether no row cares for a key, so that its v need not be read.
fn nobody(none_of_mine: bool) -> bool {
  return none_of_mine;
}

@compute @workgroup_size(LANES, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  forward(workgroup, lane, 0u);
}
