// Backward: the gradients of predicted centres, summed over heads.
//
//   center_sums [batch, heads_q, seq_q, 16]: what each invocation of a row has seen -> d_table [batch, seq_q]
//
// One invocation per centre; it goes through the heads in order, so the sums are the same in every run.

@compute @workgroup_size(64, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let i = (workgroup.y * 65535u + workgroup.x) * 64u + lane;
  if (i >= params.bias_batch_n * params.seq_q) { return; }
  let batch = i / params.seq_q;
  let row = i % params.seq_q;
  var sum = 0.0;
  for (var head = 0u; head < params.heads_q; head += 1u) {
    let at = ((batch * params.heads_q + head) * params.seq_q + row) * 16u;
    for (var slice = 0u; slice < 16u; slice += 1u) { sum += center_sums[at + slice]; }
  }
  d_table_store(params.o_base + i, sum);
}
