// Attention along the edges of a graph: each row visits its own keys only.
//
//   q [batch, heads_q, seq_q, dim_qk], k, v, edge_starts [seq_q + 1], edge_keys [edges]
//   -> o, lse as the fused kernels
//
//   for each edge e of edge_starts[i]..edge_starts[i + 1] of row i:
//     j = edge_keys[e];  if j is visible: the step of common/fused_rows.wgsl with key j
//   o / l, m + ln l
//
// Workgroup (x, y) = (LANES rows, (batch, head) pair); invocation = one row with q and o in
// registers. Work and reads are proportional to the edges. Where it departs from `fused_forward`:
//  1. A row has keys of its own, so nothing is shared: each invocation loads its k and v, and rows
//     of one workgroup wait for the one with most edges.
//  2. Every key is tested: there are no whole ranges, block tables or pages.
//  3. The bias of an edge is found by `current_edge` rather than by a search for the key.

// The edge that is being visited.
var<private> current_edge: u32;

fn nobody(none_of_mine: bool) -> bool {
  return none_of_mine;
}

@compute @workgroup_size(LANES, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let batch = params.batch0 + workgroup.y / params.head_n;
  let head = params.head0 + workgroup.y % params.head_n;
  let row = params.row0 + workgroup.x * LANES + lane;
  let rows = rows_of(batch, head, row, row);
  let row_end = stored_end(rows, params.row0 + params.row_n);
  let visible = key_range(rows);
  let head_kv = head / params.group;
  let q_at = params.q_base + q_origin(batch) + head * params.q_stride_head;
  let o_at = params.o_base + o_origin(batch) + head * params.o_stride_head;
  let k_at = params.k_base + k_origin(batch) + head_kv * params.k_stride_head;
  let v_at = params.v_base + v_origin(batch) + head_kv * params.v_stride_head;
  registers_load_q(head, q_at, row, row_end, 0u);

  var m = RowVec(normalize_empty().m);
  var l = RowVec(0.0);
  let edges = select(vec2<u32>(0u), edges_of(row), row < row_end);
  for (var edge = edges.x; edge < edges.y; edge += 1u) {
    current_edge = edge;
    let key = edge_key(edge);
    if (key >= visible.x && key < visible.y) {
      let s = registers_modify(registers_product(k_at + key * params.k_stride_row, 0u), rows, row, key);
      let hidden = registers_hidden(s, rows, row, key);
      if (!hidden) {
        let peak = normalize_peak(m, s);
        let old = normalize_rescale(m, peak);
        let p = normalize_weight(s, m, peak);
        l = fma(l, old, normalize_share(p));
        m = peak;
        var share = p;
        if (FACTOR) { share *= registers_factor(rows, row, key); }
        registers_accumulate(v_at + key * params.v_stride_row, 0u, old, share);
      }
    }
  }
  registers_finish(rows, row, row_end, o_at, m, l, 0u);
}
