// One pass over the keys with an online normaliser; scores are never written to memory. For
// softmax:
//
//   m = -inf, l = 0, o = 0                           a sink z: m = z, l = 1
//   for each visible key j:                          s = modifiers(scale * q k_j)
//     m' = max(m, s);  a = exp(m - m');  p = exp(s - m')
//     l = a l + p;     o = a o + p v_j;  m = m'
//   o / l, m + ln l
//
// Where it departs from that:
//  1. An invocation owns ROWS query rows, `LANES` apart, with their q and o in registers; a
//     workgroup owns GROUP_ROWS = LANES * ROWS rows of one head. No workgroup memory and no
//     barriers. k and v are read once per workgroup at addresses that are the same for all its
//     invocations, and feed ROWS fused multiply-adds per element. The straight-line code over
//     registers (`registers_*`) is generated from ROWS and the head dimensions.
//  2. Other normalisers (slot/normalize) fill the same places: m', a, p, and what o is scaled with
//     in the end. A sink joins last (`finish_row`).
//  3. Keys outside `key_range`, and those in blocks that a block table rules out, are not visited;
//     keys inside `whole_range` (and in a block without a hidden pair, where there is a table) are
//     seen by every row and need no test. A hidden key's weight is 0 and its v is selected away, so
//     NaN there cannot leak.
//  4. WIDE: rows whose q and o would not fit an invocation are shared by all of a workgroup,
//     GROUP_ROWS = ROWS. Each holds every LANES-th vec4 of them and of k and v, and scores are
//     summed over the subgroup. Where keys may be hidden, all are tested.

// Ends a row: joins its sink, writes its lse, and returns what o is to be multiplied with.
fn finish_row(rows: Rows, row: u32, seen: Normalizer, writes: bool) -> f32 {
  let total = row_total(rows, row, seen);
  if (LSE && writes) {
    lse_store(lse_index(rows, row), normalize_lse(total));
  }
  return row_scale(rows, row, seen, total);
}

// `slice` is this invocation's place among those that fetch k and v together.
fn forward(workgroup: vec3<u32>, lane: u32, slice: u32) {
  let batch = params.batch0 + workgroup.y / params.head_n;
  let head = params.head0 + workgroup.y % params.head_n;
  let block_end = params.row0 + params.row_n;
  let row0 = params.row0 + workgroup.x * GROUP_ROWS;
  let rows = rows_of(batch, head, row0, min(row0 + GROUP_ROWS, block_end) - 1u);
  let row_end = stored_end(rows, block_end);
  let visible = key_range(rows);
  let whole = whole_range(rows, visible);
  let row = row0 + select(lane, 0u, WIDE);
  let head_kv = head / params.group;
  let q_at = params.q_base + q_origin(batch) + head * params.q_stride_head;
  let o_at = params.o_base + o_origin(batch) + head * params.o_stride_head;
  let k_at = params.k_base + k_origin(batch) + head_kv * params.k_stride_head;
  let v_at = params.v_base + v_origin(batch) + head_kv * params.v_stride_head;
  registers_load_q(head, q_at, row, row_end, slice);

  var m = RowVec(normalize_empty().m);
  var l = RowVec(0.0);
  // Keys in ascending order, whatever block a row is in: in each span tested ones, whole ones, tested ones. So a row's
  // sums do not depend on its neighbours, since a hidden key changes nothing. Loops rather than an `if`: drivers that
  // run shaders on the CPU execute both sides of one.
  for (var start = visible.x; start < visible.y;) {
    let span = next_span(rows, start, visible, whole);
    start = span.w;
    // Where k and v of this span lie, less what their keys' rows count from.
    let origin = vec2<u32>(k_at, v_at) + span_offset(rows, span.x);
    for (var part = 0u; part < select(1u, 2u, MASKED); part += 1u) {
      let tested = select(span.xy, span.zw, part == 1u);
      for (var key = tested.x; MASKED && key < tested.y; key += 1u) {
        let s = registers_modify(registers_product(origin.x + key * params.k_stride_row, slice), rows, row, key);
        let hidden = registers_hidden(s, rows, row, key);
        if (!nobody(registers_all(hidden))) {
          let peak = select(normalize_peak(m, s), m, hidden);
          let old = normalize_rescale(m, peak);
          let p = select(normalize_weight(s, m, peak), RowVec(0.0), hidden);
          l = fma(l, old, select(normalize_share(p), RowVec(0.0), hidden));
          m = peak;
          var share = p;
          if (FACTOR) { share *= registers_factor(rows, row, key); }
          registers_accumulate_shown(origin.y + key * params.v_stride_row, slice, old, share, hidden);
        }
      }
      let untested = select(span.yz, span.zz, part == 1u);
      for (var key = untested.x; !(WIDE && MASKED) && key < untested.y; key += 1u) {
        let s = registers_modify(registers_product(origin.x + key * params.k_stride_row, slice), rows, row, key);
        let peak = normalize_peak(m, s);
        let old = normalize_rescale(m, peak);
        let p = normalize_weight(s, m, peak);
        l = fma(l, old, normalize_share(p));
        m = peak;
        registers_accumulate(origin.y + key * params.v_stride_row, slice, old, p);
      }
    }
  }
  registers_finish(rows, row, row_end, o_at, m, l, slice);
}
