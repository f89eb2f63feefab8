// Stage 4 of the staged backward pass, for k and v: d[j, :] = sum over the group's query heads and over rows i of
// a[i, j] * b[i, :]. For v, a is the weights and b is d_o; for k, a is d_x and b is q.
//
//   scores (a) [block of rows, score_stride], q (b) [batch, heads_q, seq_q, dim_v] -> o [batch,
//     heads_kv, seq_kv, dim_v]
//
// Workgroup (x, y, z) = (64 columns, key tile, (batch, head of k and v) pair): 64 x 64 gradients by
// 64 invocations, rows ascending within a head and heads ascending, so the sums are the same in
// every run. Per 16 visible rows two barriers; 8 KiB of workgroup memory. Row tiles that do not see
// the key tile are stepped over. Where rows come in several blocks the sums are carried from one to
// the next.
//
// Pairs that a mask hides (-0) are left out as in `staged_value`.

// Four elements of a row of a for keys from `key` on; no part outside what its 64-row tile sees.
fn parts4(pair: u32, row: u32, row_end: u32, key: u32, visible: vec2<u32>) -> vec4<f32> {
  if (row >= row_end || key >= params.score_stride) { return vec4<f32>(0.0); }
  let a = scores[((pair * params.row_n + row) * params.score_stride + key) >> 2u];
  let keys = vec4<u32>(key) + vec4<u32>(0u, 1u, 2u, 3u);
  let none = (keys < vec4<u32>(visible.x)) | (keys >= vec4<u32>(visible.y));
  return select(a, vec4<f32>(bitcast<f32>(params.minus_infinity & 0x80000000u)), none);
}

@compute @workgroup_size(64, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let heads = params.head_n / params.group;
  let batch = params.batch0 + workgroup.z / heads;
  let head_kv = params.head0 / params.group + workgroup.z % heads;
  let key0 = workgroup.y * TILE;
  let column0 = workgroup.x * TILE;
  if (lane == 0u) { atomicStore(&sh_special[0], 0u); }
  half_begin(lane);
  workgroupBarrier();

  let c = lane & 15u;
  let d = lane >> 4u;
  let column = column0 + c * 4u;
  let n = min(max(params.dim_v, column) - column, 4u);
  let x = lane & 7u;
  let y = lane >> 3u;
  var acc: array<vec4<f32>, 16>;
  for (var head = head_kv * params.group; head < (head_kv + 1u) * params.group; head += 1u) {
    let pair = (batch - params.batch0) * params.head_n + head - params.head0;
    let b_at = params.q_base + q_origin(batch) + head * params.q_stride_head + column;
    for (var tile = 0u; tile < params.row_n; tile += TILE) {
      let row0 = params.row0 + tile;
      let row_end = min(tile + TILE, params.row_n);
      let rows = rows_of(batch, head, row0, params.row0 + row_end - 1u);
      let visible = key_range(rows);
      let reached = visible.y > key0 && visible.x < key0 + TILE;
      // Rows that packed tensors do not hold are in nobody's sum.
      let last = max(stored_end(rows, params.row0 + row_end), params.row0) - params.row0;
      for (var step = tile; step < select(tile, row_end, reached); step += DEPTH) {
        for (var i = 0u; i < 4u; i += 1u) {
          let row = step + i * 4u + d;
          sh_a[(i * 4u + d) * 16u + c] = parts4(pair, row, last, key0 + c * 4u, visible);
          let b4 = q_load4(b_at + (params.row0 + row) * params.q_stride_row, select(0u, n, row < last));
          if (any_special(b4)) { atomicStore(&sh_special[0], 1u); }
          tile_put_b_row(i * 4u + d, c, b4);
        }
        tile_turn(&acc, x, y);
      }
    }
  }

  var sums = acc;
  let rows = rows_of(batch, head_kv * params.group, 0u, 0u);
  let key_end = read_end(rows, params.seq_kv);
  for (var i = 0u; i < 16u; i += 1u) {
    let key = key0 + tile_row(i, y);
    let column = column0 + tile_column(i, x);
    if (key < key_end && column < params.dim_v) {
      finish_key(workgroup.z, batch, head_kv, key, column, params.dim_v, sums[i]);
    }
  }
}
