// Fused backward pass, second of three: the gradient of q from scores that are computed again.
//
//   q, d_o, states [batch, heads_q, seq_q, ..], k, v [batch, heads_kv, seq_kv, ..]
//   -> d_q (o), shift - c and 1 / l in the row's states
//
//   for each visible key j:
//     x = <q, k_j>;  s = modifiers(scale * x);  w = e^(s - lse);  y = <d_o, v_j> * factor
//     d_s = the normaliser's derivative (softmax: w (y + shift))
//     l = l + w;  e = e + d_s;  slope = derivatives of the modifiers
//     d_q = d_q + d_s * slope * k_j;  z = z + w * slope * k_j
//   c = e / l - d_lse
//   (d_q - c z) / l, shift - c, 1 / l
//
// l is 1 but for what is rounded off lse: 4e-6 where that is 60. So softmax's weights are as near as if their sum were
// known, here and, by 1 / l, in `fused_backward_keys`. The shift holds <d_o, o>, which was rounded where o was: where
// one key takes most of the weight, y and it differ by little more. c is how far it was from the mean of y, and z what
// the gradient of q owes to it; so o may be f16. Wide rows of f32 have no room for z, and only their keys gain; weights
// that are their score's own have no lse, and need neither.
//
// Workgroup (x, y) = (block of GROUP rows, (batch, head) pair). An invocation owns some rows, LANES apart, with
// their q, d_o and d_q in registers; keys are visited in ascending order as in `common/fused_rows.wgsl`, and read at
// addresses that are the same for all invocations. 2 * (3 * dim_qk + dim_v) FLOP a pair, with z.

fn gradients(workgroup: vec3<u32>, lane: u32) {
  let batch = workgroup.y / params.heads_q;
  let head = workgroup.y % params.heads_q;
  let row0 = workgroup.x * GROUP;
  let rows = rows_of(batch, head, row0, min(row0 + GROUP, params.seq_q) - 1u);
  let row_end = stored_end(rows, params.seq_q);
  let visible = key_range(rows);
  let whole = whole_range(rows, visible);
  let row = row0 + lane;
  let q_at = q_origin(batch) + head * params.q_stride_head;
  let d_o_at = o_origin(batch) + head * params.o_stride_head;
  let head_kv = head / params.group;
  let k_at = params.k_base + k_origin(batch) + head_kv * params.k_stride_head;
  let v_at = params.v_base + v_origin(batch) + head_kv * params.v_stride_head;
  own_load(params.q_base + q_at, params.d_o_base + d_o_at, row, row_end);
  let kept = own_kept(rows, row);
  var l = RowVec(0.0);
  var e = RowVec(0.0);
  for (var start = visible.x; start < visible.y;) {
    let span = next_span(rows, start, visible, whole);
    start = span.w;
    for (var part = 0u; part < select(1u, 2u, MASKED); part += 1u) {
      let tested = select(span.xy, span.zw, part == 1u);
      for (var key = tested.x; MASKED && key < tested.y; key += 1u) {
        let at = k_at + key * params.k_stride_row;
        let x = own_product(at);
        let s = own_modify(x, rows, row, key);
        let hidden = own_hidden(s, rows, row, key);
        if (!own_all(hidden)) {
          let y = own_incoming(v_at + key * params.v_stride_row);
          let share = shown(shares(rows, row, key, x, s, y, kept), hidden);
          own_add_shown(at, share.d_x, share.weight * share.slope, hidden);
          l += share.weight;
          e += share.d_s;
        }
      }
      let untested = select(span.yz, span.zz, part == 1u);
      for (var key = untested.x; key < untested.y; key += 1u) {
        let at = k_at + key * params.k_stride_row;
        let x = own_product(at);
        let s = own_modify(x, rows, row, key);
        let y = own_incoming(v_at + key * params.v_stride_row);
        let share = shares(rows, row, key, x, s, y, kept);
        own_add(at, share.d_x, share.weight * share.slope);
        l += share.weight;
        e += share.d_s;
      }
    }
  }
  own_store(params.o_base + q_at, row, row_end, rows.q_len, own_ends(rows, row, row_end, l, e));
}
