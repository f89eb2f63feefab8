// Backward: the gradient of a table that a score modifier reads, [heads_q, elements of a head].
//
//   entries [block of rows, score_stride] -> d_table [heads_q, table_width]
//
//   for each sequence, row and key of the block that take in the element: sum += entry * derivative by the element
//
// Workgroup (x, y) = (element, head of the block): 64 invocations that take rows by turns, each its
// keys ascending, and join their sums as a tree: the same sums in every run. Where other blocks
// touch the head too, later ones add to it.

var<workgroup> sh_sum: array<f32, 64>;

@compute @workgroup_size(64, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let element = workgroup.x;
  let head = params.head0 + workgroup.y;
  var sum = 0.0;
  for (var b = 0u; b < params.bias_batch_n; b += 1u) {
    let rows = rows_of(params.batch0 + b, head, params.row0, params.row0);
    let end = stored_end(rows, params.row0 + params.row_n);
    for (var row = params.row0 + lane; row < end; row += 64u) {
      let keys = max(table_keys(position_at(rows, row, 0u), element), vec2<i32>(0));
      let base = ((b * params.head_n + workgroup.y) * params.row_n + row - params.row0) * params.score_stride;
      for (var key = u32(keys.x); key < min(u32(keys.y), params.seq_kv); key += 1u) {
        let i = base + key;
        sum = fma(table_entry(position_at(rows, row, key)), entries[i >> 2u][i & 3u], sum);
      }
    }
  }
  sh_sum[lane] = sum;
  workgroupBarrier();
  for (var step = 32u; step > 0u; step >>= 1u) {
    if (lane < step) { sh_sum[lane] += sh_sum[lane + step]; }
    workgroupBarrier();
  }
  if (lane == 0u) {
    let at = params.o_base + head * params.table_width + element;
    var total = sh_sum[0];
    if (params.carry_in == 1u) { total += d_table[at]; }
    d_table[at] = total;
  }
}
