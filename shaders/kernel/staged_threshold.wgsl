// Stage 2 of 3 for sparsemax and 1.5-entmax: w[i, j] = weight(x_ij - tau_i) in place, where x =
// THRESHOLD_SCALE (s - max_i) and tau_i makes the row sum to 1. Buffers are those of
// `staged_normalize`.
//
//   tau = -1
//   repeat:                                 terms(x) = (weight(x), its slope), 0 for x <= 0
//     (sum, slope) = sum_j terms(x_j - tau)
//     if sum <= 1: end
//     tau = tau + (sum - 1) / slope
//   w_j = weight(x_j - tau)
//
// The sum is convex and falls with tau, and at tau = -1 it is at least 1; so Newton's iteration
// from there climbs to the root and never passes it. Workgroup (x, y) = (4 rows, (batch, head)
// pair), 16 invocations per row as in `staged_normalize`; one sweep over the visible part of the
// rows per round. Where it departs from that:
//  1. It ends where no row's tau moves any more in f32: about 5 rounds for sparsemax, 10 for
//     entmax. All four rows go round together, since barriers must be uniform.
//  2. A row with a NaN or an infinite largest score has no projection: its visible weights are NaN,
//     and MAX_ROUNDS ends it.
//  3. A masked score is far below any tau, and its weight is the -0 that stage 3 leaves out.

var<workgroup> sh_going: u32;

// Far more than is ever needed; a row with NaN must end as well.
const MAX_ROUNDS: u32 = 100u;

@compute @workgroup_size(64, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let part = row_part(workgroup, lane);
  let rows = part.rows;
  let row = part.row;
  let slice = part.slice;
  let base = part.base;

  var m = LOWEST;
  var nan = 0.0;
  for (var i = part.first_own; i < part.end; i += LANES) {
    let s = scores[base + i];
    let shown = select(s, vec4<f32>(LOWEST), masked4(s));
    m = max(m, max(max(shown.x, shown.y), max(shown.z, shown.w)));
    for (var c = 0u; c < 4u; c += 1u) { nan = max(nan, select(0.0, 1.0, is_nan(s[c]))); }
  }
  m = row_max(lane, slice, m);
  workgroupBarrier();
  // Without a largest score that is a number there is no projection: every visible weight is NaN. LOWEST is -inf.
  let lost = row_max(lane, slice, nan) > 0.0 || m <= LOWEST || !is_finite(m);

  var tau = -1.0;
  for (var round = 0u; round < MAX_ROUNDS; round += 1u) {
    var terms = vec2<f32>(0.0);
    for (var i = part.first_own; i < part.end; i += LANES) {
      let s = scores[base + i];
      // A masked score is far below any tau.
      let x = select(THRESHOLD_SCALE * (s - m) - tau, vec4<f32>(-1.0), masked4(s));
      terms += threshold_terms(x);
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
  if (!part.alive) { return; }
  // Packed sequences have fewer rows than the longest; weights of the others are 0.
  let held = row < stored_end(rows, row + 1u);
  if (!held && CAPTURE != CAPTURE_PROBABILITIES) { return; }

  for (var i = part.first_own; held && i < part.end; i += LANES) {
    let s = scores[base + i];
    var w = threshold_weight(THRESHOLD_SCALE * (s - m) - tau);
    if (FACTOR) { w *= weight_factor4(position_at(rows, row, i * 4u)); }
    w = select(w, vec4<f32>(not_a_number()), vec4<bool>(lost));
    scores[base + i] = weights_of_parts(w, masked4(s));
  }
  if (held && slice == 0u) { inverse_sums[part.scratch_row] = 1.0; }
  if (CAPTURE == CAPTURE_PROBABILITIES) {
    let all_row = (rows.batch * params.heads_q + rows.head) * params.seq_q + row;
    // The same lane wrote what it reads here, so no barrier is needed.
    for (var i = slice; i * 4u < params.seq_kv; i += LANES) {
      let inside = held && i >= part.begin && i < part.end;
      for (var c = 0u; c < 4u && i * 4u + c < params.seq_kv; c += 1u) {
        var p = 0.0;
        if (inside) {
          let w = scores[base + i][c];
          p = select(w, 0.0, has_no_part(w));
        }
        weights_store(all_row * params.seq_kv + i * 4u + c, p);
      }
    }
  }
}
