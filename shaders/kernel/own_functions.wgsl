// What functions of the caller's own say of each pair of a small call, for the self-test to compare with
// their closures.
//
//   -> weights [functions, batch, heads_q, seq_q, seq_kv]: a score modifier's result for a score that follows
//   from the pair, 1 or 0 for a mask
//
// Invocation = one pair and one function; workgroup (x, y, z) = (64 keys, row, function * (batch, head) pairs).

@compute @workgroup_size(64, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let key = workgroup.x * 64u + lane;
  if (key >= params.seq_kv) { return; }
  let row = workgroup.y;
  let pairs = params.split_n * params.heads_q;
  let pair = workgroup.z % pairs;
  let p = position_at(rows_of(pair / params.heads_q, pair % params.heads_q, row, row), row, key);
  let s = f32((row * 7u + key * 13u) % 33u) * 0.125 - 2.0;
  weights[(workgroup.z * params.seq_q + row) * params.seq_kv + key] = own_function(workgroup.z / pairs, s, p);
}
