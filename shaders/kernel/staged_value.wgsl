// Stage 3 of 3: o[i, :] = (1 / sum_i) * sum_j e[i, j] v[j, :].
//
//   scores (now e) [block of rows, score_stride], inverse_sums [block of rows],
//   v [batch, heads_kv, seq_kv, dim_v] -> o [batch, heads_q, seq_q, dim_v]
//
// Workgroup (x, y, z) = (64 columns of dim_v, row tile, (batch, head) pair): 64 x 64 outputs by 64 invocations. Per 16
// visible keys two barriers; 8 KiB of workgroup memory. Bound by arithmetic, as stage 1.
//
// A key that has no part in a row's sum (a weight of -0) must not meet it with NaN or infinity in v; a
// visible key does, whatever its weight. A finite product needs no test, so the tile is multiplied plainly
// until a value of v is special; from then on this workgroup leaves those weights out, element by element.

// Four weights of a row of the block, 0 outside it.
fn weight4(pair: u32, row: u32, key: u32) -> vec4<f32> {
  if (row >= params.row_n || key >= params.score_stride) { return vec4<f32>(0.0); }
  return scores[((pair * params.row_n + row) * params.score_stride + key) >> 2u];
}

@compute @workgroup_size(64, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let batch = params.batch0 + workgroup.z / params.head_n;
  let head = params.head0 + workgroup.z % params.head_n;
  let local_row0 = workgroup.y * TILE;
  let row0 = params.row0 + local_row0;
  let column0 = workgroup.x * TILE;
  let rows = rows_of(batch, head, row0, min(row0 + TILE, params.row0 + params.row_n) - 1u);
  let visible = key_range(rows);
  let begin = max(visible.x & ~(DEPTH - 1u), params.key0);
  let end = min(visible.y, params.key0 + params.key_n);
  if (lane == 0u) { atomicStore(&sh_special[0], 0u); }
  half_begin(lane);
  workgroupBarrier();

  let r = lane & 15u;
  let d = lane >> 4u;
  let e_row = local_row0 + r * 4u;
  let column = column0 + r * 4u;
  let n = min(max(params.dim_v, column) - column, 4u);
  let v_at = params.v_base + v_origin(batch) + (head / params.group) * params.v_stride_head;
  let x = lane & 7u;
  let y = lane >> 3u;
  var acc: array<vec4<f32>, 16>;
  for (var j = begin; j < end; j += DEPTH) {
    tile_put_a(r, d, mat4x4<f32>(
      weight4(workgroup.z, e_row, j + d * 4u),
      weight4(workgroup.z, e_row + 1u, j + d * 4u),
      weight4(workgroup.z, e_row + 2u, j + d * 4u),
      weight4(workgroup.z, e_row + 3u, j + d * 4u)));
    for (var i = 0u; i < 4u; i += 1u) {
      let key = j + i * 4u + d;
      let at = v_at + span_offset(rows, key).y + key * params.v_stride_row;
      let v4 = v_read4(at, column, select(0u, n, key < end && key_there(rows, key)));
      if (any_special(v4)) { atomicStore(&sh_special[0], 1u); }
      tile_put_b_row(i * 4u + d, r, v4);
    }
    tile_turn(&acc, x, y);
  }

  tile_finish(&acc, x, y);
  var sums = acc;
  for (var i = 0u; i < 16u; i += 1u) {
    let local_row = local_row0 + tile_row(i, y);
    let column = column0 + tile_column(i, x);
    let row_end = stored_end(rows, params.row0 + params.row_n);
    if (params.row0 + local_row < row_end && column < params.dim_v) {
      let scratch_row = workgroup.z * params.row_n + local_row;
      finish4(rows, scratch_row, params.row0 + local_row, column, sums[i]);
    }
  }
}

// Scales and stores four columns of o, or hands them on when more keys are to come.
fn finish4(rows: Rows, scratch_row: u32, row: u32, column: u32, sum: vec4<f32>) {
  var total = sum;
  if (CARRY) {
    // Rows of the carry are dim_v rounded up to 4 elements long.
    let at = scratch_row * ((params.dim_v + 3u) >> 2u) + (column >> 2u);
    if (params.carry_in == 1u) { total += carry_load(at); }
    if (params.carry_out == 1u) {
      carry_store(at, total);
      return;
    }
  }
  let at = params.o_base + o_origin(rows.batch) + rows.head * params.o_stride_head
    + row * params.o_stride_row + column;
  o_store4(at, min(params.dim_v - column, 4u), total * (inverse_sums[scratch_row] * value_scale(rows.head)));
}
