// Few query rows against many keys: each workgroup takes a share of the keys of one key/value head
// and every query head that reads it, so that k and v are read once per group; `split_merge` joins
// the shares.
//
//   q [batch, heads_q, seq_q, dim_qk],
//   k, v [batch, heads_kv, seq_kv, ...] in any storage, contiguous or in pages
//   -> states [batch, heads_q, seq_q, split_n] (m, l),
//      partials [batch, heads_q, seq_q, split_n, dim_v / 4]
//
//   for each tile of KEYS keys of the share:
//     s_j = modifiers(scale * q k_j)             KEY_LANES invocations to a key     | barrier
//     m' = max(m, max_j s_j);  a = exp(m - m');  p_j = exp(s_j - m')                | barrier
//     l = a l + sum_j p_j;  o = a o + sum_j p_j v_j;  m = m'                        | barrier
//   states = (m, l), partials = o
//
// Workgroup (x, y) = (split, ((batch, key head) pair, ROWS of the group's rows)). The group's rows
// are numbered query row * group + head. Each element of k and v is loaded once and feeds ROWS
// products: bound by loads where a group is small. 2 * (dim_qk + dim_v) FLOP per row and key. Where
// it departs from the above:
//  1. Every step is for ROWS rows at once: s, p, m and l are vectors over them. Where several
//     invocations of a subgroup share a key, they read its row side by side, as memory serves it best,
//     and leave the product in `sh_weights` behind one more barrier.
//  2. In the sums an invocation has every DIM_LANES-th vec4 of o, with LANES / DIM_LANES keys side
//     by side, whose parts are joined in the end; the v of eight keys is asked for at once.
//  3. A key that all rows may not see is not read; one that some may not is left out of their sums
//     by its bit in `sh_hidden`, so NaN in its v cannot leak.
//  4. Tiles start at multiples of KEYS and lanes at multiples of LANES whatever the share, and a
//     hidden key changes nothing: with shares of a fixed size a row's bits do not depend on its
//     neighbours, the batch or the number of splits.

var<workgroup> sh_weights: array<RowVec, KEYS>;
// Bit r: the key is hidden from row r.
var<workgroup> sh_hidden: array<u32, KEYS>;
// What is added to the address of the key's v so that it lies in its page.
var<workgroup> sh_places: array<u32, KEYS>;
var<workgroup> sh_rows: array<RowVec, LANES>;
var<workgroup> sh_sums: array<vec4<f32>, LANES>;

// Most invocations whose parts each other invocation looks at: more are joined by the first of them before.
const FOLD: u32 = 8u;

// Channels 4d..4d+3 of q of a row of the group; zeros in rows that are not there.
fn q_word(rows: Rows, packed: u32, row_end: u32, d: u32) -> vec4<f32> {
  let row = params.row0 + packed / params.group;
  let head = rows.head + packed % params.group;
  let at = params.q_base + q_origin(rows.batch) + head * params.q_stride_head + row * params.q_stride_row;
  return q_load4(at + d * 4u, select(0u, min(DIM_QK - d * 4u, 4u), row < row_end));
}

// Which rows the i-th key of a tile of n is hidden from, as bits.
fn hidden_bits(i: u32, n: u32) -> u32 {
  if (!MASKED) { return select(0u, HIDDEN_FROM_ALL, i >= n); }
  return sh_hidden[min(i, KEYS - 1u)] | select(0u, HIDDEN_FROM_ALL, i >= n);
}

// Where the v of the i-th key of a tile is, or what is at hand where nobody looks at it.
fn place_of(v_at: u32, key0: u32, i: u32, hidden: u32) -> u32 {
  if (hidden == HIDDEN_FROM_ALL) { return 0u; }
  var at = v_at + (key0 + i) * params.v_stride_row;
  if (PAGED) { at += sh_places[i]; }
  return at;
}

// Where the row of the i-th key of a tile is; keys outside of a share stand at one that is there.
fn row_of(rows: Rows, k_at: u32, first: u32, end: u32, key0: u32, i: u32) -> u32 {
  let key = select(first, key0 + i, key0 + i >= first && key0 + i < end);
  return k_at + span_offset(rows, key).x + key * params.k_stride_row;
}

@compute @workgroup_size(LANES, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let total = params.group * params.row_n;
  let blocks = (total + ROWS - 1u) / ROWS;
  let pair = workgroup.y / blocks;
  let batch = params.batch0 + pair / params.head_n;
  let head_kv = params.head0 + pair % params.head_n;
  let first = workgroup.y % blocks * ROWS;
  let last = min(first + ROWS, total) - 1u;
  let rows = rows_of(batch, head_kv * params.group, params.row0 + first / params.group,
    params.row0 + last / params.group);
  let row_end = stored_end(rows, params.row0 + params.row_n);
  let visible = key_range(rows);
  let share = share_of(visible, workgroup.x);
  let k_at = params.k_base + k_origin(batch) + head_kv * params.k_stride_head;
  let v_at = params.v_base + v_origin(batch) + head_kv * params.v_stride_head;
  split_begin(rows, first, last, row_end, lane);
  if (SHARED_Q) { workgroupBarrier(); }

  var m = RowVec(normalize_empty().m);
  // This invocation's part of the sum.
  var l = RowVec(0.0);
  for (var key0 = share.x; key0 < share.y; key0 += KEYS) {
    var peaks = m;
    if (KEY_LANES > 1u) {
      for (var i = lane / KEY_LANES; i < KEYS; i += KEYS_ASKED * (LANES / KEY_LANES)) {
        split_parts(rows, k_at, visible.x, share.y, key0, i, lane % KEY_LANES);
      }
      workgroupBarrier();
    }
    for (var i = lane; i < KEYS; i += LANES) {
      let inside = key0 + i >= visible.x && key0 + i < share.y;
      let key = select(visible.x, key0 + i, inside);
      let origin = span_offset(rows, key);
      let product = product_of(k_at + origin.x + key * params.k_stride_row, i);
      let s = split_modify(product, rows, key);
      let hidden = RowMask(!inside) | split_hidden(s, rows, key);
      peaks = select(normalize_peak(peaks, s), peaks, hidden);
      sh_weights[i] = s;
      if (MASKED) { sh_hidden[i] = split_bits(hidden); }
      if (PAGED) { sh_places[i] = origin.y; }
    }
    sh_rows[lane] = peaks;
    workgroupBarrier();
    if (LANES > FOLD) {
      if (lane < FOLD) {
        for (var i = lane + FOLD; i < LANES; i += FOLD) { peaks = normalize_peak(peaks, sh_rows[i]); }
        sh_rows[lane] = peaks;
      }
      workgroupBarrier();
    }
    var peak = m;
    for (var i = 0u; i < min(LANES, FOLD); i += 1u) { peak = normalize_peak(peak, sh_rows[i]); }
    let old = normalize_rescale(m, peak);
    let n = min(KEYS, share.y - key0);
    l *= old;
    for (var i = lane; i < KEYS; i += LANES) {
      // Where nothing is masked, only keys past the end are hidden.
      var hidden = RowMask(i >= n);
      if (MASKED) { hidden = split_mask(sh_hidden[i]); }
      let p = select(normalize_weight(sh_weights[i], m, peak), RowVec(0.0), hidden);
      l += select(normalize_share(p), RowVec(0.0), hidden);
      var weight = p;
      if (FACTOR) { weight *= split_factor(rows, key0 + i); }
      sh_weights[i] = weight;
    }
    m = peak;
    workgroupBarrier();
    split_rescale(old);
    for (var i = lane / DIM_LANES; i < n; i += KEYS_AT_ONCE * SIDE_BY_SIDE) {
      split_accumulate(v_at, key0, i, n, lane % DIM_LANES);
    }
    workgroupBarrier();
  }
  sh_rows[lane] = l;
  workgroupBarrier();
  if (LANES > FOLD) {
    if (lane < FOLD) {
      for (var i = lane + FOLD; i < LANES; i += FOLD) { l += sh_rows[i]; }
      sh_rows[lane] = l;
    }
    workgroupBarrier();
  }
  var sum = RowVec(0.0);
  for (var i = 0u; i < min(LANES, FOLD); i += 1u) { sum += sh_rows[i]; }
  split_end(rows, first, last, workgroup.x, lane, m, sum);
}

// The sum of an invocation's neighbours that have the same vec4s of o, in the order of their keys.
fn sum_of_parts(mine: vec4<f32>, lane: u32) -> vec4<f32> {
  if (DIM_LANES == LANES) { return mine; }
  sh_sums[lane] = mine;
  workgroupBarrier();
  var sum = vec4<f32>(0.0);
  for (var i = lane % DIM_LANES; i < LANES; i += DIM_LANES) { sum += sh_sums[i]; }
  workgroupBarrier();
  return sum;
}
