// Backward: the gradients of sinks and of factors of heads, sums over the rows of each head.
//
//   row_sums [batch, heads_q, seq_q] -> d_table [heads_q]
//
// Workgroup x = head, 64 invocations that take rows by turns and join their sums as a tree: the
// same sums in every run.

var<workgroup> sh_sum: array<f32, 64>;

@compute @workgroup_size(64, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let head = workgroup.x;
  var sum = 0.0;
  for (var batch = 0u; batch < params.bias_batch_n; batch += 1u) {
    let rows = rows_of(batch, head, 0u, 0u);
    // Rows past a packed sequence's own have no sum.
    let end = stored_end(rows, params.seq_q);
    for (var row = lane; row < end; row += 64u) {
      sum += row_sums[(batch * params.heads_q + head) * params.seq_q + row];
    }
  }
  sh_sum[lane] = sum;
  workgroupBarrier();
  for (var step = 32u; step > 0u; step >>= 1u) {
    if (lane < step) { sh_sum[lane] += sh_sum[lane + step]; }
    workgroupBarrier();
  }
  if (lane == 0u) { d_table_store(params.o_base + head, sh_sum[0]); }
}
