// Stage 1 of 3: s[i, j] = modifiers(scale * inner(q[i], k[j])), -inf where a mask hides the key; the inner loop is a
// slot, a product unless the score is additive.
//
//   q [batch, heads_q, seq_q, dim_qk], k [batch, heads_kv, seq_kv, dim_qk] -> scores [block of rows, score_stride], f32
//
// Workgroup (x, y, z) = (key tile, row tile, (batch, head) pair of the block): 64 x 64 scores by 64 invocations.
// Per 16 of dim_qk two barriers; 8 KiB of workgroup memory. 2 * 64 * 64 * dim_qk FLOP against 2 * 64 * dim_qk loads and
// 64 * 64 stores: bound by arithmetic from dim_qk = 16 on. Tiles that no row may see are not computed, and nobody
// reads them.
//
// Every lane of a visible tile writes, also past seq_kv up to score_stride, so stage 2 never reads what was not
// written.

// Returns the four scores at (row, key..key+3), writing them to `weights` where those are asked for.
fn finish4(rows: Rows, row: u32, key: u32, product: vec4<f32>) -> vec4<f32> {
  var result = vec4<f32>(masked());
  for (var c = 0u; c < 4u; c += 1u) {
    let p = position_at(rows, row, key + c);
    if (p.key >= params.seq_kv) { break; }
    let scaled = score_scaled(product[c], p);
    let capped = score_capped(scaled, p);
    let final_score = select(masked(), biased_score(capped, p), keep(p));
    result[c] = score_drawn(final_score, p);
    if (CAPTURE != CAPTURE_NONE) {
      let shown = select(final_score, masked(), final_score == LOWEST);
      let s = select(select(shown, capped, CAPTURE == CAPTURE_CAPPED), scaled, CAPTURE == CAPTURE_SCALED);
      let held = pair_held(rows, row, p.key) && (!PAGED || (p.key < rows.kv_len && key_there(rows, p.key)));
      weights_store(row_of(rows, row) * params.seq_kv + p.key, select(masked(), s, held));
    }
  }
  return result;
}

// Index of a row among all rows of [batch, heads_q, seq_q].
fn row_of(rows: Rows, row: u32) -> u32 {
  return (rows.batch * params.heads_q + rows.head) * params.seq_q + row;
}

@compute @workgroup_size(64, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let batch = params.batch0 + workgroup.z / params.head_n;
  let head = params.head0 + workgroup.z % params.head_n;
  let row0 = params.row0 + workgroup.y * TILE;
  let row_end = params.row0 + params.row_n;
  let key0 = params.key0 + workgroup.x * TILE;
  let rows = rows_of(batch, head, row0, min(row0 + TILE, row_end) - 1u);
  let visible = key_range(rows);
  let key_end = read_end(rows, params.key0 + params.key_n);
  let q_end = stored_end(rows, row_end);
  let hidden = key0 >= visible.y || key0 + TILE <= visible.x;
  if (hidden && CAPTURE == CAPTURE_NONE) { return; }

  // Invocation (r, d) of the copy loads rows 4r.. of q and of k at depths 4d..: 16 x 4 blocks of 4 x 4.
  let r = lane & 15u;
  let d = lane >> 4u;
  let q_row = row0 + r * 4u;
  let k_row = key0 + r * 4u;
  let q_at = params.q_base + q_origin(batch) + head * params.q_stride_head + q_row * params.q_stride_row;
  let k_at = params.k_base + k_origin(batch) + (head / params.group) * params.k_stride_head
    + k_row * params.k_stride_row;
  // What pages add to the addresses of four keys, and which of them have a place.
  let pages = vec4<u32>(span_offset(rows, k_row).x, span_offset(rows, k_row + 1u).x,
    span_offset(rows, k_row + 2u).x, span_offset(rows, k_row + 3u).x);
  let placed = vec4<bool>(key_there(rows, k_row), key_there(rows, k_row + 1u), key_there(rows, k_row + 2u),
    key_there(rows, k_row + 3u));
  half_begin(lane);
  let x = lane & 7u;
  let y = lane >> 3u;
  var acc: array<vec4<f32>, 16>;
  // Where the block table rules out the tile nothing is multiplied, but its masked scores are written.
  let depth = select(0u, params.dim_qk, CAPTURE != CAPTURE_NONE || tile_visited(rows, vec2<u32>(key0, min(key0 + TILE, params.seq_kv))));
  for (var c = 0u; c < depth; c += DEPTH) {
    let column = c + d * 4u;
    let n = min(max(params.dim_qk, column) - column, 4u);
    tile_put_a(r, d, mat4x4<f32>(
      q_load4(q_at + column, select(0u, n, q_row < q_end)),
      q_load4(q_at + params.q_stride_row + column, select(0u, n, q_row + 1u < q_end)),
      q_load4(q_at + 2u * params.q_stride_row + column, select(0u, n, q_row + 2u < q_end)),
      q_load4(q_at + 3u * params.q_stride_row + column, select(0u, n, q_row + 3u < q_end))));
    tile_put_b_columns(r, d, mat4x4<f32>(
      k_read4(k_at + pages.x, column, select(0u, n, k_row < key_end && placed.x)),
      k_read4(k_at + params.k_stride_row + pages.y, column, select(0u, n, k_row + 1u < key_end && placed.y)),
      k_read4(k_at + 2u * params.k_stride_row + pages.z, column, select(0u, n, k_row + 2u < key_end && placed.z)),
      k_read4(k_at + 3u * params.k_stride_row + pages.w, column, select(0u, n, k_row + 3u < key_end && placed.w))));
    workgroupBarrier();
    inner_tile(&acc, head, c, x, y);
    workgroupBarrier();
  }

  tile_finish(&acc, x, y);
  // A copy: indexing `acc` by a variable would move it to memory for the whole kernel.
  var product = acc;
  for (var i = 0u; i < 16u; i += 1u) {
    let row = row0 + tile_row(i, y);
    let key = key0 + tile_column(i, x);
    if (row < row_end && key < params.score_stride) {
      let s = finish4(rows, row, key, product[i]);
      let local_row = workgroup.z * params.row_n + row - params.row0;
      scores[(local_row * params.score_stride + key) >> 2u] = s;
    }
  }
}
