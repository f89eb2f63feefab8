// Stage 3 of the staged backward pass for sparsemax and 1.5-entmax; buffers are those of `backward_row`.
//
//   s = modifiers(x), y = (y + d_weights) * factor
//   tau as in `staged_threshold`, w = weight(THRESHOLD_SCALE (s - max) - tau)
//   d_s = m (y - sum(m y) / sum(m)), m = threshold_measure: 1 for the keys that have a part, or the
//     root of their weight; keys without a part pass nothing on, whatever their y
//   d_x = d_s * the derivatives of the modifiers
//
// Workgroup (x, y) = (4 rows, (batch, head) pair), 16 invocations per row; one sweep for the
// maximum, one per round of Newton's iteration, one for the sums and one that writes. Scores are
// made again from their products in each, since both are needed in the end and there is room for
// one.

var<workgroup> sh_going: u32;

// Far more than is ever needed; a row with NaN must end as well.
const MAX_ROUNDS: u32 = 100u;

@compute @workgroup_size(64, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let part = row_part(workgroup, lane);
  let rows = part.rows;
  let row = part.row;
  let base = part.base;
  let slice = part.slice;

  var m = LOWEST;
  var nan = 0.0;
  for (var i = part.first_own; i < part.end; i += LANES) {
    let s = scores4(rows, row, i * 4u, products4(scores[base + i]));
    let shown = select(s, vec4<f32>(LOWEST), masked4(s));
    m = max(m, max(max(shown.x, shown.y), max(shown.z, shown.w)));
    for (var c = 0u; c < 4u; c += 1u) { nan = max(nan, select(0.0, 1.0, is_nan(s[c]))); }
  }
  m = row_max(lane, slice, m);
  workgroupBarrier();
  // Without a largest score that is a number there is no projection: everything visible is NaN. LOWEST is -inf.
  let lost = row_max(lane, slice, nan) > 0.0 || m <= LOWEST || !is_finite(m);

  var tau = -1.0;
  for (var round = 0u; round < MAX_ROUNDS; round += 1u) {
    var terms = vec2<f32>(0.0);
    for (var i = part.first_own; i < part.end; i += LANES) {
      let s = scores4(rows, row, i * 4u, products4(scores[base + i]));
      // A masked score is far below any tau.
      terms += threshold_terms(select(THRESHOLD_SCALE * (s - m) - tau, vec4<f32>(-1.0), masked4(s)));
    }
    let sums = row_sum(lane, slice, terms);
    let next = tau + (sums.x - 1.0) / max(sums.y, 1e-30);
    let moves = sums.x > 1.0 && next > tau;
    if (lane == 0u) { sh_going = 0u; }
    workgroupBarrier();
    if (moves) { sh_going = 1u; }
    tau = select(tau, next, moves);
    if (workgroupUniformLoad(&sh_going) == 0u) { break; }
  }

  // sum(m), sum(m y)
  var measures = vec2<f32>(0.0);
  for (var i = part.first_own; i < part.end; i += LANES) {
    let key = i * 4u;
    let s = scores4(rows, row, key, products4(scores[base + i]));
    let y = incoming4(rows, row, key, products4(grads[base + i]), factors4(rows, row, key));
    let measure = select(threshold_measure(THRESHOLD_SCALE * (s - m) - tau), vec4<f32>(0.0), masked4(s));
    let term = select(measure * y, vec4<f32>(0.0), masked4(s) | (measure == vec4<f32>(0.0)));
    measures += vec2<f32>(dot(measure, vec4<f32>(1.0)), dot(term, vec4<f32>(1.0)));
  }
  measures = row_sum(lane, slice, measures);
  let mean = measures.y / max(measures.x, 1e-30);
  if (!part.alive || row >= stored_end(rows, row + 1u)) { return; }

  var center = 0.0;
  for (var i = part.first_own; i < part.end; i += LANES) {
    let key = i * 4u;
    let x = products4(scores[base + i]);
    let s = scores4(rows, row, key, x);
    let none = masked4(s);
    let factor = factors4(rows, row, key);
    let y = incoming4(rows, row, key, products4(grads[base + i]), factor);
    let z = THRESHOLD_SCALE * (s - m) - tau;
    let measure = threshold_measure(z);
    var d_s = select(measure * (y - mean), vec4<f32>(0.0), none | (measure == vec4<f32>(0.0)));
    d_s = select(d_s, vec4<f32>(not_a_number()), vec4<bool>(lost) & !none);
    let before = select(threshold_weight(z), vec4<f32>(not_a_number()), vec4<bool>(lost));
    center += centers4(rows, row, key, before, y, none);
    let w = select(threshold_weight(z) * factor, vec4<f32>(not_a_number()), vec4<bool>(lost));
    gradients_store(part, i, x, w, d_s, none);
  }
  row_end_store(part, center);
}
