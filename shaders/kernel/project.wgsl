// y[z, i, n] = sum_c x[z, i, c] w[n, c] + b[n]: a linear layer, weights [out, in].
//
//   x = binding q: [batch, rows, in], w = binding projection: [out, in], b = binding bias: [out]
//     -> y = binding o: [batch, rows, out]
//
// Workgroup (x, y, z) = (64 outputs, 64 rows, batch) by 64 invocations on the tile of common/tile.wgsl; bound by
// arithmetic from 16 inputs on.
@compute @workgroup_size(64, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let row0 = workgroup.y * TILE;
  let out0 = workgroup.x * TILE;
  let r = lane & 15u;
  let d = lane >> 4u;
  let x_row = row0 + r * 4u;
  let w_row = out0 + r * 4u;
  let x_at = params.q_base + workgroup.z * params.q_stride_batch + x_row * params.q_stride_row;
  let w_at = params.projection_base + w_row * params.projection_stride_row;
  half_begin(lane);
  let x = lane & 7u;
  let y = lane >> 3u;
  var acc: array<vec4<f32>, 16>;
  for (var c = 0u; c < params.dim_qk; c += DEPTH) {
    let column = c + d * 4u;
    let n = min(max(params.dim_qk, column) - column, 4u);
    tile_put_a(r, d, mat4x4<f32>(
      q_load4(x_at + column, select(0u, n, x_row < params.seq_q)),
      q_load4(x_at + params.q_stride_row + column, select(0u, n, x_row + 1u < params.seq_q)),
      q_load4(x_at + 2u * params.q_stride_row + column, select(0u, n, x_row + 2u < params.seq_q)),
      q_load4(x_at + 3u * params.q_stride_row + column, select(0u, n, x_row + 3u < params.seq_q))));
    tile_put_b_columns(r, d, mat4x4<f32>(
      projection_load4(w_at + column, select(0u, n, w_row < params.dim_v)),
      projection_load4(w_at + params.projection_stride_row + column, select(0u, n, w_row + 1u < params.dim_v)),
      projection_load4(w_at + 2u * params.projection_stride_row + column, select(0u, n, w_row + 2u < params.dim_v)),
      projection_load4(w_at + 3u * params.projection_stride_row + column, select(0u, n, w_row + 3u < params.dim_v))));
    workgroupBarrier();
    tile_products(&acc, false, x, y);
    workgroupBarrier();
  }

  tile_finish(&acc, x, y);
  // A copy: indexing `acc` by a variable would move it to memory for the whole kernel.
  var sums = acc;
  for (var i = 0u; i < 16u; i += 1u) {
    let row = row0 + tile_row(i, y);
    let column = out0 + tile_column(i, x);
    if (row < params.seq_q && column < params.dim_v) {
      let n = min(params.dim_v - column, 4u);
      var v = sums[i];
      for (var c = 0u; c < n; c += 1u) { v[c] += added(column + c); }
      o_store4(params.o_base + workgroup.z * params.o_stride_batch + row * params.o_stride_row + column, n, v);
    }
  }
}
