// Backward: the gradient of the bias, summed over the axes along which it is broadcast.
//
//   entries [block of rows, score_stride] -> d_table, of the bias's shape
//
// One invocation per element of the bias that the block touches; it goes through sequences, heads, rows and keys in
// order, so the sums are the same in every run. Where other blocks touch the element too, later ones add to it.
// 4 B of reads per pair: bound by bandwidth.

// How many elements of an axis the bias has of its own.
fn own(n: u32, stride: u32) -> u32 {
  return select(n, 1u, stride == 0u);
}

@compute @workgroup_size(64, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let batch_n = params.bias_batch_n;
  let own_keys = own(params.seq_kv, params.bias_stride_key);
  let own_rows = own(params.row_n, params.bias_stride_row);
  let own_heads = own(params.head_n, params.bias_stride_head);
  let own_batch = own(batch_n, params.bias_stride_batch);
  let i = (workgroup.y * 65535u + workgroup.x) * 64u + lane;
  if (i >= own_keys * own_rows * own_heads * own_batch) { return; }
  let key = i % own_keys;
  let row = i / own_keys % own_rows;
  let head = i / (own_keys * own_rows) % own_heads;
  let batch = i / (own_keys * own_rows * own_heads);
  let at = params.o_base + (params.batch0 + batch) * params.bias_stride_batch
    + (params.head0 + head) * params.bias_stride_head + (params.row0 + row) * params.bias_stride_row
    + key * params.bias_stride_key;
  var sum = 0.0;
  if (params.carry_in == 1u) { sum = d_table[at]; }
  for (var b = batch; b < batch_n; b += own_batch) {
    for (var h = head; h < params.head_n; h += own_heads) {
      for (var r = row; r < params.row_n; r += own_rows) {
        let base = ((b * params.head_n + h) * params.row_n + r) * params.score_stride;
        for (var k = key; k < params.seq_kv; k += own_keys) {
          sum += entries[(base + k) >> 2u][(base + k) & 3u];
        }
      }
    }
  }
  d_table[at] = sum;
}
