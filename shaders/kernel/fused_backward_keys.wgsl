// Fused backward pass, last of three: the gradients of k and v from scores that are computed again.
//
//   q, d_o, states [batch, heads_q, seq_q, ..], k, v [batch, heads_kv, seq_kv, ..] -> d_k (o), d_v
//
//   for each query head of the group, for each row i that sees some of the keys:
//     x, s, w, y and d_s as in `fused_backward_rows`
//     d_v = d_v + w * factor * d_o_i
//     d_k = d_k + d_s * derivatives of the modifiers * q_i
//
// Workgroup (x, y) = (block of GROUP keys, (batch, head of k and v) pair). An invocation owns some keys, LANES
// apart, with their k, v, d_k and d_v in registers. Heads and rows ascend, so the sums are the same in every run. Rows
// are taken ROWS_AT_ONCE at a time: those that see no key of the block are stepped over, and those that see all of it
// are not tested. 4 * (dim_qk + dim_v) FLOP a pair.

const ROWS_AT_ONCE: u32 = 16u;

// The rows of a step that are tested, and those that are not: one of the two is empty.
struct Step {
  tested: vec2<u32>,
  untested: vec2<u32>,
}

fn step_of(rows: Rows, keys: vec2<u32>) -> Step {
  let none = vec2<u32>(rows.first);
  let visible = key_range(rows);
  if (visible.y <= keys.x || visible.x >= keys.y || !tile_visited(rows, keys)) { return Step(none, none); }
  let all = vec2<u32>(rows.first, min(rows.last + 1u, rows.q_len));
  let whole = whole_range(rows, visible);
  let seen = whole.x <= keys.x && whole.y >= keys.y && tile_whole(rows, keys);
  return Step(select(all, none, seen), select(none, all, seen));
}

fn gradients(workgroup: vec3<u32>, lane: u32) {
  let heads_kv = params.heads_q / params.group;
  let batch = workgroup.y / heads_kv;
  let head_kv = workgroup.y % heads_kv;
  let key0 = workgroup.x * GROUP;
  let keys = vec2<u32>(key0, min(key0 + GROUP, params.seq_kv));
  let key = key0 + lane;
  let first = rows_of(batch, head_kv * params.group, 0u, 0u);
  let key_end = read_end(first, params.seq_kv);
  let k_at = k_origin(batch) + head_kv * params.k_stride_head;
  let v_at = v_origin(batch) + head_kv * params.v_stride_head;
  own_load(params.k_base + k_at, params.v_base + v_at, key, key_end);
  for (var head = head_kv * params.group; head < (head_kv + 1u) * params.group; head += 1u) {
    let q_at = params.q_base + q_origin(batch) + head * params.q_stride_head;
    let d_o_at = params.d_o_base + o_origin(batch) + head * params.o_stride_head;
    for (var row0 = 0u; row0 < first.q_len; row0 += ROWS_AT_ONCE) {
      let rows = rows_of(batch, head, row0, min(row0 + ROWS_AT_ONCE, params.seq_q) - 1u);
      let step = step_of(rows, keys);
      for (var row = step.tested.x; row < step.tested.y; row += 1u) {
        let at = vec2<u32>(q_at + row * params.q_stride_row, d_o_at + row * params.o_stride_row);
        let x = own_product(at.x);
        let s = own_modify(x, rows, row, key);
        let hidden = own_hidden(s, rows, row, key);
        if (!own_all(hidden)) {
          let y = own_incoming(at.y);
          let share = shown(shares(rows, row, key, x, s, y, row_kept(rows, row)), hidden);
          own_add_shown(at.x, share.d_x, hidden);
          own_weigh_shown(at.y, share.of_v, hidden);
        }
      }
      for (var row = step.untested.x; row < step.untested.y; row += 1u) {
        let at = vec2<u32>(q_at + row * params.q_stride_row, d_o_at + row * params.o_stride_row);
        let x = own_product(at.x);
        let s = own_modify(x, rows, row, key);
        let y = own_incoming(at.y);
        let share = shares(rows, row, key, x, s, y, row_kept(rows, row));
        own_add(at.x, share.d_x);
        own_weigh(at.y, share.of_v);
      }
    }
  }
  own_store(params.o_base + k_at, params.d_v_base + v_at, key, key_end);
}
