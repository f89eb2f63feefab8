// Stage 2 of 3: per row, weights in place up to a factor (for softmax e[i, j] = exp(s[i, j] - max_i)), the row's lse,
// and the factor for stage 3 (for softmax 1 / sum_i).
//
//   scores [block of rows, score_stride] -> the same buffer; inverse_sums [block of rows];
//   lse [batch, heads_q, seq_q]; weights [batch, heads_q, seq_q, seq_kv] when probabilities are asked for
//
// Workgroup (x, y) = (4 rows, (batch, head) pair): 16 invocations per row, a vec4 each, any row length. Two sweeps over
// the visible part of the row (one online, one that writes), 16 B of reads and 16 B of writes per 4 scores: bound by
// bandwidth. Masked scores become -0, which stage 3 leaves out (`weights_of_parts`).

@compute @workgroup_size(64, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let part = row_part(workgroup, lane);
  let rows = part.rows;
  let row = part.row;
  let slice = part.slice;
  let base = part.base;

  var state = normalize_empty();
  for (var i = part.first_own; i < part.end; i += LANES) {
    state = push4(state, scores[base + i], i * 4u);
  }
  sh_m[lane] = state.m;
  sh_l[lane] = state.l;
  workgroupBarrier();
  for (var step = LANES / 2u; step > 0u; step >>= 1u) {
    if (slice < step) {
      let merged = normalize_merge(Normalizer(sh_m[lane], sh_l[lane]), Normalizer(sh_m[lane + step], sh_l[lane + step]));
      sh_m[lane] = merged.m;
      sh_l[lane] = merged.l;
    }
    workgroupBarrier();
  }
  if (!part.alive) { return; }
  // Packed sequences have fewer rows than the longest; weights of the others are 0.
  let held = row < stored_end(rows, row + 1u);
  if (!held && CAPTURE != CAPTURE_PROBABILITIES) { return; }
  let head_lane = lane - slice;
  var total = Normalizer(sh_m[head_lane], sh_l[head_lane]);
  if (row < rows.q_len) {
    total = normalize_merge(total, normalize_start(rows.head));
  }
  let inverse = normalize_scale(total, total);

  for (var i = part.first_own; held && i < part.end; i += LANES) {
    let s = scores[base + i];
    var w = weights4(s, total, i * 4u);
    if (FACTOR) { w *= weight_factor4(position_at(rows, row, i * 4u)); }
    scores[base + i] = weights_of_parts(w, no_part4(s, total, i * 4u));
  }
  let all_row = (rows.batch * params.heads_q + rows.head) * params.seq_q + row;
  if (held && slice == 0u) {
    inverse_sums[part.scratch_row] = inverse;
    if (LSE) {
      lse_store(lse_index(rows, row), normalize_lse(total));
    }
  }
  if (CAPTURE == CAPTURE_PROBABILITIES) {
    // The same lane wrote what it reads here, so no barrier is needed.
    for (var i = slice; i * 4u < params.seq_kv; i += LANES) {
      let inside = held && i >= part.begin && i < part.end;
      for (var c = 0u; c < 4u && i * 4u + c < params.seq_kv; c += 1u) {
        var p = 0.0;
        if (inside) {
          let w = scores[base + i][c];
          p = select(w * inverse, 0.0, has_no_part(w));
        }
        weights_store(all_row * params.seq_kv + i * 4u + c, p);
      }
    }
  }
}
