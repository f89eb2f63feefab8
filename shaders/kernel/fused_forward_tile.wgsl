// Fused attention on a tile: OWNED rows by KEYS keys of one head by LANES invocations, both products
// register-blocked.
//
//   q [batch, heads_q, seq_q, dim_qk], k [batch, heads_kv, seq_kv, dim_qk],
//   v [batch, heads_kv, seq_kv, dim_v]
//   -> o [batch, heads_q, seq_q, dim_v], lse [batch, heads_q, seq_q]
//
//   for each tile of KEYS keys that some row may look at:
//     S = modifiers(scale * Q K^T)                   OWNED x KEYS, by chunks of channels
//     m' = max(m, rows' maxima of S);  a = exp(m - m')
//     P = exp(S - m');  l = a l + rows' sums of P
//     O = a O + P V;    m = m'                       32 keys of P at a time, by chunks of v
//   O / l, m + ln l
//
// Workgroup (x, y) = (block of OWNED rows, the last one first, (batch, head) pair). Invocation (x, y)
// of ACROSS by DOWN owns rows 4y..4y+3 (and those of a second strip, 4 DOWN further), keys 4x..4x+3
// of every 4 ACROSS, and of o every ACROSS-th vec4 of columns. Where it departs from the above:
//  1. Scores, weights and outputs stay in registers; straight-line code over them (`tile_*`) is
//     generated. l stays in parts, one to each invocation, until the end (`end_rows`).
//  2. Workgroup memory is blocks of [4][16] vec4. Chunks of q and k lie depth by depth, so that a
//     vec4 is four rows or keys; of 32 keys at a time the weights lie key by key, and beside them
//     chunks of v. Where blocks are 8 by 8 a vec4 from there feeds 16 multiply-adds: less often
//     than memory of a workgroup can serve, arithmetic waits for it.
//  3. O is multiplied with a only where a peak of the rows has moved.
//  4. Tiles that no row looks at are not visited; tiles that every row sees whole are not tested.
//  5. A hidden key's weight is the -0 of `common/numeric.wgsl`, and where v holds NaN or infinity
//     it is left out of the sum rather than multiplied.
//  6. Tiles start at multiples of KEYS and a hidden key changes nothing, so a row's bits do not
//     depend on its neighbours.

// Four rows' ends: their lse is stored, and what o is multiplied with is put where all find it.
fn end_rows(rows: Rows, row_end: u32, row0: u32, place: Place, m: vec4<f32>) {
  let l = tile_l(place);
  var scale = vec4<f32>(0.0);
  var empty = vec4<f32>(0.0);
  for (var c = 0u; c < 4u; c += 1u) {
    let row = row0 + place.lane * 4u + c;
    let seen = Normalizer(m[c], l[c]);
    let total = row_total(rows, row, seen);
    if (LSE && row < row_end) { lse_store(lse_index(rows, row), normalize_lse(total)); }
    scale[c] = row_scale(rows, row, seen, total);
    empty[c] = select(0.0, 1.0, row_empty(rows, row, seen));
  }
  sh[0][0][place.lane] = scale;
  sh[0][1][place.lane] = empty;
}

@compute @workgroup_size(LANES, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let batch = params.batch0 + workgroup.y / params.head_n;
  let head = params.head0 + workgroup.y % params.head_n;
  let block_end = params.row0 + params.row_n;
  // The last rows first: under a causal mask they have most to do, and what ends last should be little.
  let groups = (params.row_n + OWNED - 1u) / OWNED;
  let row0 = params.row0 + (groups - 1u - workgroup.x) * OWNED;
  let rows = rows_of(batch, head, row0, min(row0 + OWNED, block_end) - 1u);
  let row_end = stored_end(rows, block_end);
  let visible = key_range(rows);
  let whole = whole_range(rows, visible);
  let place = place_of(lane, row0);
  tile_begin(place);

  let m = attend(rows, visible, whole, origins_of(batch, head), place, row0);

  gather_l(place);
  if (lane < OWNED / 4u) { end_rows(rows, row_end, row0, place, m); }
  workgroupBarrier();
  tile_store(place, row_end, params.o_base + o_origin(batch) + head * params.o_stride_head);
}
