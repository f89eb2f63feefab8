// Stage 3 of the staged backward pass: per row, from products of q and k and of d_o and v, the
// weights and the gradient of the products of q and k, both in place.
//
//   scores (x[i, j] = inner(q[i], k[j])) -> w[i, j], weights times the factors of their places
//   grads (y[i, j] = <d_o[i], v[j]>) -> d_x[i, j]
//   inverse_sums [block of rows] -> 1, what the sums of d_x k are multiplied with
//   entries [block of rows, score_stride]: the gradient of scores behind the biases
//   row_sums [batch, heads_q, seq_q]: that of the row's sink
//
//   s = modifiers(x), y = (y + d_weights) * factor
//   w = normaliser(s), d = sum(w y), d_s = the normaliser's derivative of y (softmax: w (y - d + d_lse))
//   d_x = d_s * the derivatives of the modifiers
//
// Workgroup (x, y) = (4 rows, (batch, head) pair): 16 invocations per row, a vec4 each, as in
// `staged_normalize`. Two sweeps over the visible part of the row, the first online; 16 B of reads
// and 8 B of writes per pair: bound by bandwidth. What a mask hides becomes -0, which the products
// leave out (`weights_of_parts`).

var<workgroup> sh_d: array<f32, 64>;

@compute @workgroup_size(64, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let part = row_part(workgroup, lane);
  let rows = part.rows;
  let row = part.row;
  let base = part.base;

  var state = normalize_empty();
  var d = 0.0;
  for (var i = part.first_own; i < part.end; i += LANES) {
    let s = scores4(rows, row, i * 4u, products4(scores[base + i]));
    let y = incoming4(rows, row, i * 4u, products4(grads[base + i]), factors4(rows, row, i * 4u));
    let before = state.m;
    state = push4(state, s, i * 4u);
    let term = select(weights4(s, state, i * 4u) * y, vec4<f32>(0.0), masked4(s));
    d = d * normalize_rescale(vec4<f32>(before), vec4<f32>(state.m)).x + ((term.x + term.y) + (term.z + term.w));
  }
  sh_m[lane] = state.m;
  sh_l[lane] = state.l;
  sh_d[lane] = d;
  workgroupBarrier();
  for (var step = LANES / 2u; step > 0u; step >>= 1u) {
    if (part.slice < step) {
      let a = Normalizer(sh_m[lane], sh_l[lane]);
      let b = Normalizer(sh_m[lane + step], sh_l[lane + step]);
      let merged = normalize_merge(a, b);
      let m = vec4<f32>(merged.m);
      sh_d[lane] = sh_d[lane] * normalize_rescale(vec4<f32>(a.m), m).x
        + sh_d[lane + step] * normalize_rescale(vec4<f32>(b.m), m).x;
      sh_m[lane] = merged.m;
      sh_l[lane] = merged.l;
    }
    workgroupBarrier();
  }
  if (!part.alive || row >= stored_end(rows, row + 1u)) { return; }
  let head_lane = lane - part.slice;
  let seen = Normalizer(sh_m[head_lane], sh_l[head_lane]);
  var total = seen;
  let start = normalize_start(rows.head);
  if (row < rows.q_len) {
    total = normalize_merge(total, start);
  }
  let inverse = normalize_scale(total, total);
  let mean = sh_d[head_lane] * normalize_rescale(vec4<f32>(seen.m), vec4<f32>(total.m)).x * inverse;
  let shift = d_lse_load(lse_index(rows, row)) - mean;

  var center = 0.0;
  for (var i = part.first_own; i < part.end; i += LANES) {
    let key = i * 4u;
    let x = products4(scores[base + i]);
    let s = scores4(rows, row, key, x);
    let factor = factors4(rows, row, key);
    let y = incoming4(rows, row, key, products4(grads[base + i]), factor);
    let none = masked4(s);
    let w = weights4(s, total, key) * inverse;
    let d_s = select(normalize_backward(s, w, y, RowVec(shift)), vec4<f32>(0.0), none);
    center += centers4(rows, row, key, w, y, none);
    gradients_store(part, i, x, w * factor, d_s, none);
  }
  row_end_store(part, center);
  if (part.slice == 0u) {
    let weight = start.l * exp_kept(start.m - total.m) * inverse;
    let all_row = (rows.batch * params.heads_q + rows.head) * params.seq_q + row;
    row_sums_store(all_row, select(weight * shift, 0.0, seen.l == 0.0));
  }
}
