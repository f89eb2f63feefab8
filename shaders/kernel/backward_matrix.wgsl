// Backward: the gradient of a matrix that rows are multiplied with.
//
//   k (d) [batch, heads, rows, dim_v], q (x) [batch, heads, rows, dim_qk] -> o [dim_v, dim_qk], f32
//
//   o[n, c] = sum over sequences, heads and rows i of d[i, n] x[i, c]
//
// Element (n, c) of o is at n * o_stride_row + c * o_stride_head. Workgroup (x, y) = (64 c, 64 n) by 64 invocations on
// the tile of common/tile.wgsl; it goes through sequences, heads and rows in order, so the sums are the same in every
// run. Per 16 rows two barriers; 8 KiB of workgroup memory.
//
// Rows that pass nothing on (d = 0) are left out, so that NaN in x behind a mask meets no sum; by the trick of
// `staged_value`: from the first special value of x on, element by element.
@compute @workgroup_size(64, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let n0 = workgroup.y * TILE;
  let c0 = workgroup.x * TILE;
  if (lane == 0u) { atomicStore(&sh_special[0], 0u); }
  half_begin(lane);
  workgroupBarrier();

  let r = lane & 15u;
  let s = lane >> 4u;
  let n = n0 + r * 4u;
  let c = c0 + r * 4u;
  let d_parts = min(max(params.dim_v, n) - n, 4u);
  let x_parts = min(max(params.dim_qk, c) - c, 4u);
  let x = lane & 7u;
  let y = lane >> 3u;
  var acc: array<vec4<f32>, 16>;
  for (var pair = 0u; pair < params.bias_batch_n * params.head_n; pair += 1u) {
    let batch = pair / params.head_n;
    let head = pair % params.head_n;
    let d_at = params.k_base + batch * params.k_stride_batch + head * params.k_stride_head + n;
    let x_at = params.q_base + batch * params.q_stride_batch + head * params.q_stride_head + c;
    for (var step = 0u; step < params.row_n; step += DEPTH) {
      for (var i = 0u; i < 4u; i += 1u) {
        let row = step + i * 4u + s;
        let there = row < params.row_n;
        let d4 = k_load4(d_at + row * params.k_stride_row, select(0u, d_parts, there));
        let x4 = q_load4(x_at + row * params.q_stride_row, select(0u, x_parts, there));
        if (any_special(x4)) { atomicStore(&sh_special[0], 1u); }
        sh_a[(i * 4u + s) * 16u + r] = weights_of_parts(d4, d4 == vec4<f32>(0.0));
        tile_put_b_row(i * 4u + s, r, x4);
      }
      tile_turn(&acc, x, y);
    }
  }

  var sums = acc;
  for (var i = 0u; i < 16u; i += 1u) {
    let row = n0 + tile_row(i, y);
    let column = c0 + tile_column(i, x);
    for (var j = 0u; j < 4u && row < params.dim_v; j += 1u) {
      let at = params.o_base + row * params.o_stride_row + (column + j) * params.o_stride_head;
      if (column + j < params.dim_qk) { o_store4(at, 1u, vec4<f32>(sums[i][j])); }
    }
  }
}
