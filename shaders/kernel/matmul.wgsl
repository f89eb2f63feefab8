// c[z, i, j] = sum_l a[z, i, l] b[z, l, j]: the plain matrix product on the tile that attention uses.
//
//   a = binding q: [batch, seq_q, seq_kv], b = binding v: [batch, seq_kv, dim_v], c = binding o: [batch, seq_q, dim_v]
//
// Workgroup (x, y, z) = (64 columns, 64 rows, batch). The bench measures attention against it.
@compute @workgroup_size(64, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let row0 = workgroup.y * TILE;
  let column0 = workgroup.x * TILE;
  let r = lane & 15u;
  let d = lane >> 4u;
  let a_row = row0 + r * 4u;
  let a_at = params.q_base + workgroup.z * params.q_stride_batch + a_row * params.q_stride_row;
  let b_at = params.v_base + workgroup.z * params.v_stride_batch;
  half_begin(lane);
  let x = lane & 7u;
  let y = lane >> 3u;
  var acc: array<vec4<f32>, 16>;
  for (var l = 0u; l < params.seq_kv; l += DEPTH) {
    let depth = l + d * 4u;
    let n = min(max(params.seq_kv, depth) - depth, 4u);
    let column = column0 + r * 4u;
    let m = min(max(params.dim_v, column) - column, 4u);
    tile_put_a(r, d, mat4x4<f32>(
      q_load4(a_at + depth, select(0u, n, a_row < params.seq_q)),
      q_load4(a_at + params.q_stride_row + depth, select(0u, n, a_row + 1u < params.seq_q)),
      q_load4(a_at + 2u * params.q_stride_row + depth, select(0u, n, a_row + 2u < params.seq_q)),
      q_load4(a_at + 3u * params.q_stride_row + depth, select(0u, n, a_row + 3u < params.seq_q))));
    for (var i = 0u; i < 4u; i += 1u) {
      let b_row = l + i * 4u + d;
      tile_put_b_row(i * 4u + d, r,
        v_load4(b_at + b_row * params.v_stride_row + column, select(0u, m, b_row < params.seq_kv)));
    }
    workgroupBarrier();
    tile_products(&acc, false, x, y);
    workgroupBarrier();
  }

  tile_finish(&acc, x, y);
  var product = acc;
  for (var i = 0u; i < 16u; i += 1u) {
    let row = row0 + tile_row(i, y);
    let column = column0 + tile_column(i, x);
    if (row < params.seq_q && column < params.dim_v) {
      let at = params.o_base + workgroup.z * params.o_stride_batch + row * params.o_stride_row + column;
      o_store4(at, min(params.dim_v - column, 4u), product[i]);
    }
  }
}
