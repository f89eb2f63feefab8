// The lengths of a cache's sequences after their new rows were written: aux[lengths] += aux[counts], up to the
// capacity.
@compute @workgroup_size(64, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let batch = workgroup.x * 64u + lane;
  if (batch >= params.row_n) { return; }
  let length = min(aux[params.aux_kv_lengths + batch], params.seq_kv);
  aux[params.aux_kv_lengths + batch] = length + min(aux[params.aux_q_lengths + batch], params.seq_kv - length);
}
