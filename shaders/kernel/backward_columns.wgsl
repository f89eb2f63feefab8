// Backward: sums of columns, the gradient of a vector that was added to each row: d_table[n] = sum over sequences and
// rows of d[z, i, n].
//
//   k (d) [batch, rows, dim_v] -> d_table [dim_v]
//
// Workgroup x = 8 columns: 8 invocations to a column, which take rows by turns and join their sums as a tree, so the
// sums are the same in every run. Bound by bandwidth.

var<workgroup> sh_sum: array<f32, 64>;

@compute @workgroup_size(64, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let column = workgroup.x * 8u + (lane & 7u);
  let turn = lane >> 3u;
  var sum = 0.0;
  if (column < params.dim_v) {
    for (var z = 0u; z < params.bias_batch_n; z += 1u) {
      let at = params.k_base + z * params.k_stride_batch + column;
      for (var i = turn; i < params.row_n; i += 8u) { sum += k_load4(at + i * params.k_stride_row, 1u).x; }
    }
  }
  sh_sum[lane] = sum;
  workgroupBarrier();
  for (var step = 32u; step > 4u; step >>= 1u) {
    if (lane < step) { sh_sum[lane] += sh_sum[lane + step]; }
    workgroupBarrier();
  }
  if (turn == 0u && column < params.dim_v) { d_table_store(params.o_base + column, sh_sum[lane]); }
}
