// Fused attention on matrix units: scores and weighted sums are products of EDGE x EDGE matrices of
// f16 with f32 sums.
//
//   q [batch, heads_q, seq_q, dim_qk], k [batch, heads_kv, seq_kv, dim_qk],
//   v [batch, heads_kv, seq_kv, dim_v]
//   -> o [batch, heads_q, seq_q, dim_v], lse [batch, heads_q, seq_q]
//
//   for each tile of KEYS keys that some row may look at:
//     fetch V into registers;  S = Q K^T;  put V into workgroup memory                    | barrier
//     s = modifiers(scale * S);  M = max(m, rows' maxima of s)
//     if M > m + LAZY:  a = exp(m - M), m = M  else  a = 1
//     P = exp(s - m);  l = a l + rows' sums of P                                          | barrier
//     if some a != 1:  O = a O;  fetch the next K;  O = O + (UNIT P) V;  put the next K   | barrier
//   O / (UNIT l), m + ln l
//
// Workgroup (x, y) = (block of ROWS rows, the last one first, (batch, head) pair). 2 * (dim_qk +
// dim_v) FLOP per row and key on matrix units; per key and team 2 * (dim_qk + dim_v) bytes and per
// row and key 12 bytes of workgroup memory, which is what binds. Where it departs from the online
// softmax of common/fused_rows.wgsl:
//  1. Each team owns TEAM_ROWS rows, whose q and o are matrices that only whole subgroups can
//     touch; so scores and weights pass through workgroup memory, [key][row], where PARTS
//     invocations work on a row.
//  2. v and the next k are fetched ahead of the products and put after them, so that memory's
//     latency hides behind the products.
//  3. Weights are relative to `m`, the largest score when o was last scaled: only when a row's peak
//     has passed it by LAZY is o taken through workgroup memory and scaled. (A reference point
//     below the largest score would save the product, and cost the log-sum-exp a digit.)
//  4. Weights are multiplied with UNIT on their way into f16, which leaves 2^15 at the top and
//     keeps eleven bits down to 2^-21.
//  5. A weight of 0 must not meet NaN or infinity in v, and what is stored as bf16 or f32 may not
//     fit f16. So the largest element of a tile is looked at as it is fetched, and tiles that do
//     not fit (`unfit`) are computed from memory in f32 instead.
//  6. Tiles start at multiples of KEYS and a hidden key changes nothing, so a row's bits do not
//     depend on its neighbours.
const LAZY: f32 = 5.545177444479562;
const UNIT: f32 = 128.0;

var<workgroup> sh_scores: array<f32, KEYS * ROW_STRIDE>;
var<workgroup> sh_weights: array<f16, KEYS * ROW_STRIDE>;
var<workgroup> sh_old: array<f32, ROWS>;
// For tiles of even and of odd number 8 words each: whether o must be scaled, 3 words of k, 3 of v (`note`); then 3 of
// q. Only stored and loaded, so that no invocation waits for another. As every array here it fills whole 16 bytes, so
// that the next one starts where matrix loads may.
var<workgroup> sh_flags: array<atomic<u32>, 20>;
const OF_K: u32 = 1u;
const OF_V: u32 = 4u;
const OF_Q: u32 = 16u;

// What an invocation works on: its row and its part of it, and its team's first row within the workgroup.
struct Work {
  rows: Rows,
  place: u32,
  part: u32,
  row: u32,
  row_end: u32,
  lane: u32,
  team_row: u32,
  visible: vec2<u32>,
  q_at: u32,
  k_at: u32,
  v_at: u32,
  o_at: u32,
}

// How o is changed on its way through workgroup memory: scaled, and with the sums over a tile that does not fit f16.
struct Turn {
  old: f32,
  m: f32,
  key0: u32,
  exact: bool,
}

fn largest_bits(x: vec4<f32>) -> u32 {
  let bits = bitcast<vec4<u32>>(x) & vec4<u32>(0x7fffffffu);
  return max(max(bits.x, bits.y), max(bits.z, bits.w));
}

// Notes in the words from `at` on what the largest of an invocation's elements says: that the tile must not be rounded
// to f16 because something is past its largest; that it may, because something is large enough to matter; or, where
// nothing is, that it is below 2^-12, where f16 keeps less than bf16. f16 itself only fails to be multiplied with 0.
fn note(at: u32, largest: u32, converted: bool) {
  if (converted && largest <= 0x477fe000u) {
    if (largest >= 0x39800000u) {
      atomicStore(&sh_flags[at + 1u], 1u);
    } else if (largest != 0u) {
      atomicStore(&sh_flags[at + 2u], 1u);
    }
  } else if (converted || largest >= 0x7f800000u) {
    atomicStore(&sh_flags[at], 1u);
  }
}

// What all have noted: whether the tile is to be computed in f32.
fn unfit(at: u32, converted: bool) -> bool {
  if (atomicLoad(&sh_flags[at]) != 0u) { return true; }
  return converted && atomicLoad(&sh_flags[at + 2u]) != 0u && atomicLoad(&sh_flags[at + 1u]) == 0u;
}

// KEYS channels of q from `channel` on, [channel][row], to where weights will lie.
fn stage_q(work: Work, channel: u32) {
  var most = 0u;
  for (var c = work.part * 4u; c < KEYS; c += PARTS * 4u) {
    let column = channel + c;
    let n = select(0u, min(max(DIM_QK, column) - column, 4u), work.row < work.row_end);
    let x = q_load4(work.q_at + work.row * params.q_stride_row + column, n);
    if (RANGED_QK) { most = max(most, largest_bits(x)); }
    for (var i = 0u; i < 4u; i += 1u) { sh_weights[(c + i) * ROW_STRIDE + work.place] = f16(x[i]); }
  }
  if (RANGED_QK) { note(OF_Q, most, true); }
}

// The w-th four elements of a tile of k, and of v; zeros where there is nothing.
fn k_word(work: Work, key0: u32, w: u32) -> vec4<f32> {
  let key = key0 + w / K_WORDS;
  let c = w % K_WORDS * 4u;
  let there = key >= work.visible.x && key < work.visible.y && key_there(work.rows, key);
  let n = select(0u, min(max(DIM_QK, c) - c, 4u), there);
  return k_load4(work.k_at + span_offset(work.rows, key).x + key * params.k_stride_row + c, n);
}

fn v_word(work: Work, key0: u32, w: u32) -> vec4<f32> {
  let key = key0 + w / V_WORDS;
  let c = w % V_WORDS * 4u;
  let there = key >= work.visible.x && key < work.visible.y && key_there(work.rows, key);
  let n = select(0u, min(max(DIM_V, c) - c, 4u), there);
  return v_load4(work.v_at + span_offset(work.rows, key).y + key * params.v_stride_row + c, n);
}

// The product of this invocation's row and a key, in f32 from memory.
fn exact_product(work: Work, key: u32) -> f32 {
  let q_at = work.q_at + work.row * params.q_stride_row;
  let k_at = work.k_at + span_offset(work.rows, key).x + key * params.k_stride_row;
  var sum = 0.0;
  for (var c = 0u; c < DIM_QK; c += 4u) {
    let n = min(DIM_QK - c, 4u);
    sum += dot(q_load4(q_at + c, select(0u, n, work.row < work.row_end)), k_load4(k_at + c, n));
  }
  return sum;
}

// Rows past the block repeat its last, and keys past the visible ones the last of those, so that no table is read
// outside.
fn shown(work: Work, key: u32) -> Position {
  return position_at(work.rows, min(work.row, work.rows.last), min(key, work.visible.y - 1u));
}

fn hides(work: Work, s: f32, key: u32) -> bool {
  return key >= work.visible.y || is_masked(s) || !keep(shown(work, key));
}

// The row's state before its weights are known: relative to a new peak if that is far enough above the old one.
fn raised(work: Work, seen: Normalizer, mine: f32, grown: u32) -> Normalizer {
  let peak = peak_of_parts(work, mine);
  var state = seen;
  var old = 1.0;
  if (peak > seen.m + LAZY) {
    state.m = peak;
    old = normalize_rescale(seen.m, peak);
    state.l = seen.l * old;
    // Where nothing was summed there is nothing to scale.
    if (seen.l != 0.0) { atomicStore(&sh_flags[grown], 1u); }
  }
  sh_old[work.place] = old;
  return state;
}

// Scores become weights, key by key with a test; returns the row's state, whose `l` is this invocation's part. Tiles
// that all rows see whole go through `weigh_whole`, which keeps scores in registers.
fn weigh_tested(work: Work, seen: Normalizer, key0: u32, exact: bool, grown: u32) -> Normalizer {
  let first = work.part * (KEYS / PARTS);
  var peak = seen.m;
  for (var i = first; i < first + KEYS / PARTS; i += 1u) {
    let at = i * ROW_STRIDE + work.place;
    let key = key0 + i;
    var product = sh_scores[at];
    if (RANGED_QK && exact && key < work.visible.y) { product = exact_product(work, key); }
    var s = modify(product, shown(work, key));
    if (hides(work, s, key)) {
      s = masked();
    } else {
      peak = normalize_peak(peak, s);
    }
    sh_scores[at] = s;
  }
  var state = raised(work, seen, peak, grown);
  for (var i = first; i < first + KEYS / PARTS; i += 1u) {
    let at = i * ROW_STRIDE + work.place;
    let s = sh_scores[at];
    let hidden = is_masked(s);
    let p = select(normalize_weight(s, state.m, state.m), 0.0, hidden);
    state.l += select(normalize_share(p), 0.0, hidden);
    var share = p;
    if (FACTOR) { share *= weight_factor(shown(work, key0 + i)); }
    sh_weights[at] = f16(share * UNIT);
  }
  return state;
}

// KEYS columns of o from `column` on, [column][row] in `sh_scores`: scaled, and with what a tile that does not fit
// adds.
fn turn_columns(work: Work, turn: Turn, column: u32) {
  for (var c = work.part * 4u; c < KEYS; c += PARTS * 4u) {
    let at = c * ROW_STRIDE + work.place;
    var x = columns4(at) * turn.old;
    if (turn.exact) { x += exact_sums(work, turn, column + c); }
    for (var i = 0u; i < 4u; i += 1u) { sh_scores[at + i * ROW_STRIDE] = x[i]; }
  }
}

fn columns4(at: u32) -> vec4<f32> {
  return vec4<f32>(sh_scores[at], sh_scores[at + ROW_STRIDE], sh_scores[at + 2u * ROW_STRIDE], sh_scores[at + 3u * ROW_STRIDE]);
}

// Four columns of the weighted sum over a tile, in f32 from memory. Rare: everything is computed anew.
fn exact_sums(work: Work, turn: Turn, column: u32) -> vec4<f32> {
  var sum = vec4<f32>(0.0);
  let n = min(max(DIM_V, column) - column, 4u);
  for (var key = max(turn.key0, work.visible.x); key < min(turn.key0 + KEYS, work.visible.y); key += 1u) {
    if (!key_there(work.rows, key)) { continue; }
    let p = shown(work, key);
    let s = modify(exact_product(work, key), p);
    if (hides(work, s, key)) { continue; }
    var weight = normalize_weight(s, turn.m, turn.m);
    if (FACTOR) { weight *= weight_factor(p); }
    let v_at = work.v_at + span_offset(work.rows, key).y + key * params.v_stride_row;
    sum += UNIT * weight * v_load4(v_at + column, n);
  }
  return sum;
}

fn store_columns(work: Work, scale: f32, empty: bool, column: u32) {
  if (work.row >= work.row_end) { return; }
  for (var c = work.part * 4u; c < KEYS; c += PARTS * 4u) {
    if (column + c >= DIM_V) { break; }
    let x = columns4(c * ROW_STRIDE + work.place) * scale;
    let at = work.o_at + work.row * params.o_stride_row + column + c;
    o_store4(at, min(DIM_V - column - c, 4u), select(x, vec4<f32>(0.0), empty));
  }
}

// The first tile from `start` on that some row may look at.
fn next_tile(rows: Rows, start: u32, visible: vec2<u32>) -> u32 {
  var key = start;
  while (key < visible.y && !tile_visited(rows, vec2<u32>(key, min(key + KEYS, visible.y)))) { key += KEYS; }
  return key;
}

fn work_of(workgroup: vec3<u32>, lane: u32) -> Work {
  let batch = params.batch0 + workgroup.y / params.head_n;
  let head = params.head0 + workgroup.y % params.head_n;
  let head_kv = head / params.group;
  let block_end = params.row0 + params.row_n;
  // The last rows first: under a causal mask they have most to do, and what ends last should be little.
  let groups = (params.row_n + ROWS - 1u) / ROWS;
  let row0 = params.row0 + (groups - 1u - workgroup.x) * ROWS;
  let rows = rows_of(batch, head, row0, min(row0 + ROWS, block_end) - 1u);
  return Work(rows, lane % ROWS, lane / ROWS, row0 + lane % ROWS, stored_end(rows, block_end), lane,
    lane / TEAM * TEAM_ROWS, key_range(rows),
    params.q_base + q_origin(batch) + head * params.q_stride_head,
    params.k_base + k_origin(batch) + head_kv * params.k_stride_head,
    params.v_base + v_origin(batch) + head_kv * params.v_stride_head,
    params.o_base + o_origin(batch) + head * params.o_stride_head);
}

@compute @workgroup_size(LANES, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let work = work_of(workgroup, lane);
  let whole = whole_range(work.rows, work.visible);
  for (var i = lane; i < 20u; i += LANES) { atomicStore(&sh_flags[i], 0u); }
  workgroupBarrier();
  matrix_load_q(work);
  let q_exact = RANGED_QK && unfit(OF_Q, true);

  var state = Normalizer(normalize_empty().m, 0.0);
  var flags = 0u;
  var key0 = next_tile(work.rows, work.visible.x / KEYS * KEYS, work.visible);
  fetch_k(work, key0, OF_K);
  put_k(work);
  workgroupBarrier();
  while (key0 < work.visible.y) {
    // The other tiles' flags: read by all before the barrier above, written by none before the next one.
    if (lane < 8u) { atomicStore(&sh_flags[8u - flags + lane], 0u); }
    fetch_v(work, key0, flags + OF_V);
    matrix_scores(work.team_row);
    put_v(work);
    workgroupBarrier();
    let tested = key0 < whole.x || key0 + KEYS > whole.y;
    let exact_k = q_exact || (RANGED_QK && unfit(flags + OF_K, true));
    if (tested || exact_k) {
      state = weigh_tested(work, state, key0, exact_k, flags);
    } else {
      state = weigh_whole(work, state, key0, flags);
    }
    workgroupBarrier();
    let exact = unfit(flags + OF_V, RANGED_V);
    let grown = atomicLoad(&sh_flags[flags]) != 0u;
    // Loops of none or one: the compiler wants uniform conditions around matrix operations and does not see that these
    // are.
    for (var turns = 0u; turns < select(0u, 1u, exact || grown); turns += 1u) {
      matrix_turn(work, Turn(sh_old[work.place], state.m, key0, exact));
    }
    key0 = next_tile(work.rows, key0 + KEYS, work.visible);
    fetch_k(work, key0, 8u - flags + OF_K);
    for (var products = 0u; products < select(1u, 0u, exact); products += 1u) {
      matrix_sums(work.team_row);
    }
    put_k(work);
    workgroupBarrier();
    flags = 8u - flags;
  }

  let seen = Normalizer(state.m, sum_of_parts(work, state.l));
  let total = row_total(work.rows, work.row, seen);
  if (LSE && work.part == 0u && work.row < work.row_end) {
    lse_store(lse_index(work.rows, work.row), normalize_lse(total));
  }
  let scale = row_scale(work.rows, work.row, seen, total) / UNIT;
  matrix_end(work, scale, row_empty(work.rows, work.row, seen));
}
