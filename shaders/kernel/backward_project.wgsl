// Backward: the gradient of a linear layer's input, o[z, i, c] = sum_n d[z, i, n] w[n, c]; added to what is there where
// params.carry_in is 1, which is how one input that serves as several has one gradient.
//
//   d = binding q: [batch, rows, out], w = binding projection: [out, in] -> o: [batch, rows, in], f32
//
// Workgroup (x, y, z) = (64 inputs, 64 rows, batch) by 64 invocations on the tile of common/tile.wgsl, as in `project`;
// but rows of w are depths here, so w is read along its rows and not transposed.
@compute @workgroup_size(64, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let row0 = workgroup.y * TILE;
  let in0 = workgroup.x * TILE;
  let r = lane & 15u;
  let s = lane >> 4u;
  let d_row = row0 + r * 4u;
  let d_at = params.q_base + workgroup.z * params.q_stride_batch + d_row * params.q_stride_row;
  let column = in0 + r * 4u;
  let parts = min(max(params.dim_v, column) - column, 4u);
  half_begin(lane);
  let x = lane & 7u;
  let y = lane >> 3u;
  var acc: array<vec4<f32>, 16>;
  for (var n0 = 0u; n0 < params.dim_qk; n0 += DEPTH) {
    let depth = n0 + s * 4u;
    let n = min(max(params.dim_qk, depth) - depth, 4u);
    tile_put_a(r, s, mat4x4<f32>(
      q_load4(d_at + depth, select(0u, n, d_row < params.seq_q)),
      q_load4(d_at + params.q_stride_row + depth, select(0u, n, d_row + 1u < params.seq_q)),
      q_load4(d_at + 2u * params.q_stride_row + depth, select(0u, n, d_row + 2u < params.seq_q)),
      q_load4(d_at + 3u * params.q_stride_row + depth, select(0u, n, d_row + 3u < params.seq_q))));
    for (var i = 0u; i < 4u; i += 1u) {
      let w_row = n0 + i * 4u + s;
      let w_at = params.projection_base + w_row * params.projection_stride_row + column;
      tile_put_b_row(i * 4u + s, r, projection_load4(w_at, select(0u, parts, w_row < params.dim_qk)));
    }
    workgroupBarrier();
    tile_products(&acc, false, x, y);
    workgroupBarrier();
  }

  var sums = acc;
  for (var i = 0u; i < 16u; i += 1u) {
    let row = row0 + tile_row(i, y);
    let column = in0 + tile_column(i, x);
    if (row < params.seq_q && column < params.dim_v) {
      let n = min(params.dim_v - column, 4u);
      let at = params.o_base + workgroup.z * params.o_stride_batch + row * params.o_stride_row + column;
      var v = sums[i];
      if (params.carry_in == 1u) { v += o_load4(at, n); }
      o_store4(at, n, v);
    }
  }
}
