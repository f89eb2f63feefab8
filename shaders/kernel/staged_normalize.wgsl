// Stage 2 of 3: per row, weights in place up to a factor (for softmax e[i, j] = exp(s[i, j] - max_i)), the row's lse, and the
// factor for stage 3 (for softmax 1 / sum_i).
//
//   scores [block of rows, score_stride] -> the same buffer; inverse_sums [block of rows];
//   lse [batch, heads_q, seq_q]; weights [batch, heads_q, seq_q, seq_kv] when probabilities are asked for
//
// Workgroup (x, y) = (4 rows, (batch, head) pair): 16 invocations per row, a vec4 each, any row length. Two sweeps over
// the visible part of the row (one online, one that writes), 16 B of reads and 16 B of writes per 4 scores: bound by
// bandwidth. Masked scores become -0, which stage 3 leaves out (`weights_of_parts`).

var<workgroup> sh_m: array<f32, 64>;
var<workgroup> sh_l: array<f32, 64>;

const LANES: u32 = 16u;
const ROWS: u32 = 4u;

@compute @workgroup_size(64, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let batch = params.batch0 + workgroup.y / params.head_n;
  let head = params.head0 + workgroup.y % params.head_n;
  let slice = lane & (LANES - 1u);
  let local_row = workgroup.x * ROWS + lane / LANES;
  let row = params.row0 + local_row;
  let alive = local_row < params.row_n;
  // The visible keys of the 64-row tile this row belongs to: what stages 1 and 3 work on.
  let first = params.row0 + ((workgroup.x * ROWS) & ~63u);
  let rows = rows_of(batch, head, first, min(first + 64u, params.row0 + params.row_n) - 1u);
  let visible = key_range(rows);
  // Stage 3 reads whole steps of 16 keys.
  let begin = (visible.x & ~15u) >> 2u;
  let end = select(0u, min((visible.y + 15u) & ~15u, params.score_stride) >> 2u, alive && visible.y > visible.x);
  // Each lane keeps to the vec4s whose index is its slice modulo LANES, in every sweep.
  let first_own = begin + ((slice - begin) & (LANES - 1u));
  let scratch_row = workgroup.y * params.row_n + local_row;
  let base = scratch_row * (params.score_stride >> 2u);

  var state = normalize_empty();
  for (var i = first_own; i < end; i += LANES) {
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
  if (!alive || row >= stored_end(rows, row + 1u)) { return; }
  let head_lane = lane - slice;
  var total = Normalizer(sh_m[head_lane], sh_l[head_lane]);
  if (row < rows.q_len) {
    total = normalize_merge(total, normalize_start(head));
  }
  let inverse = normalize_scale(total, total);

  for (var i = first_own; i < end; i += LANES) {
    let s = scores[base + i];
    var w = weights4(s, total, i * 4u);
    if (FACTOR) {
      for (var c = 0u; c < 4u; c += 1u) { w[c] *= weight_factor(position_at(rows, row, i * 4u + c)); }
    }
    scores[base + i] = weights_of_parts(w, no_part4(s, total, i * 4u));
  }
  let all_row = (batch * params.heads_q + head) * params.seq_q + row;
  if (slice == 0u) {
    inverse_sums[scratch_row] = inverse;
    if (LSE) {
      lse_store(lse_index(rows, row), normalize_lse(total));
    }
  }
  if (CAPTURE == CAPTURE_PROBABILITIES) {
    // The same lane wrote what it reads here, so no barrier is needed.
    for (var i = slice; i * 4u < params.seq_kv; i += LANES) {
      let inside = i >= begin && i < end;
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
