// Joins the shares that `split_forward`, `split_forward_tile` and `split_forward_group` leave.
//
//   states [batch, heads_q, seq_q, split_n] (m, l), partials [..., dim_v / 4]
//   -> o [batch, heads_q, seq_q, dim_v], lse
//
//   M = max_i m_i;  L = sum_i l_i exp(m_i - M);  o = sum_i o_i exp(m_i - M) / L;  lse = M + ln L
//
// Workgroup (x, y) = (query row, (batch, head) pair): COLUMN_LANES invocations side by side along o,
// SIDES shares at a time. Bound by reading the partials, or by waiting for them: few rows are a few
// workgroups. Where it departs from that:
//  1. An invocation joins every SIDES-th share (for M and L every LANES-th) in order, and their sums
//     are joined pair by pair: the bits of a row are always the same, however many shares follow.
//  2. Shares that saw nothing (l = 0) change nothing, whatever their partials hold.
//  3. Four shares are asked for before any is used.
//  4. The sink counts once, after all shares (`row_total`).

var<workgroup> sh_states: array<vec2<f32>, LANES>;
var<workgroup> sh_sums: array<vec4<f32>, LANES>;

// Peak and sum of all shares of a row, that every invocation gets.
fn join_states(first: u32, lane: u32) -> Normalizer {
  var m = normalize_empty().m;
  for (var i = lane; i < params.split_n; i += LANES) {
    let state = states[first + i];
    // Not `!=`, which drops NaN in some translations.
    m = select(normalize_peak(m, state.x), m, state.y == 0.0);
  }
  sh_states[lane] = vec2<f32>(m, 0.0);
  workgroupBarrier();
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    if (lane < half) { sh_states[lane].x = normalize_peak(sh_states[lane].x, sh_states[lane + half].x); }
    workgroupBarrier();
  }
  let peak = sh_states[0].x;
  var l = 0.0;
  for (var i = lane; i < params.split_n; i += LANES) {
    let state = states[first + i];
    l = select(fma(state.y, normalize_rescale(state.x, peak), l), l, state.y == 0.0);
  }
  sh_states[lane].y = l;
  workgroupBarrier();
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    if (lane < half) { sh_states[lane].y += sh_states[lane + half].y; }
    workgroupBarrier();
  }
  return Normalizer(peak, sh_states[0].y);
}

// One share of a vec4 of o, weighted; nothing of those past the last.
fn part_of(first: u32, i: u32, columns: u32, c: u32, m: f32, sum: vec4<f32>) -> vec4<f32> {
  let at = first + min(i, params.split_n - 1u);
  let state = states[at];
  let x = partials[at * columns + c];
  return select(fma(x, vec4<f32>(normalize_rescale(state.x, m)), sum), sum, state.y == 0.0 || i >= params.split_n);
}

@compute @workgroup_size(LANES, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let batch = params.batch0 + workgroup.y / params.head_n;
  let head = params.head0 + workgroup.y % params.head_n;
  let row = params.row0 + workgroup.x;
  let rows = rows_of(batch, head, row, row);
  let stored = row < stored_end(rows, params.row0 + params.row_n);
  let first = ((batch * params.heads_q + head) * params.seq_q + row) * params.split_n;
  let seen = join_states(first, lane);
  let total = row_total(rows, row, seen);
  if (LSE && stored && lane == 0u) { lse_store(lse_index(rows, row), normalize_lse(total)); }
  let scale = row_scale(rows, row, seen, total);
  let empty = row_empty(rows, row, seen);
  let columns = (params.dim_v + 3u) / 4u;
  let at = params.o_base + o_origin(batch) + head * params.o_stride_head + row * params.o_stride_row;
  for (var c0 = 0u; c0 < columns; c0 += COLUMN_LANES) {
    let c = min(c0 + lane % COLUMN_LANES, columns - 1u);
    var sum = vec4<f32>(0.0);
    for (var i = lane / COLUMN_LANES; i < params.split_n; i += 4u * SIDES) {
      sum = part_of(first, i, columns, c, seen.m, sum);
      sum = part_of(first, i + SIDES, columns, c, seen.m, sum);
      sum = part_of(first, i + 2u * SIDES, columns, c, seen.m, sum);
      sum = part_of(first, i + 3u * SIDES, columns, c, seen.m, sum);
    }
    sh_sums[lane] = sum;
    workgroupBarrier();
    for (var half = SIDES / 2u; half > 0u; half /= 2u) {
      if (lane < half * COLUMN_LANES) { sh_sums[lane] += sh_sums[lane + half * COLUMN_LANES]; }
      workgroupBarrier();
    }
    if (stored && lane < COLUMN_LANES && c0 + lane < columns) {
      o_store4(at + 4u * c, min(params.dim_v - 4u * c, 4u), select(sh_sums[lane] * scale, vec4<f32>(0.0), empty));
    }
    workgroupBarrier();
  }
}
