// Stage 2 of 3 for monotonic attention at inference (Raffel et al., 2017). Buffers are those of
// `staged_normalize`.
//
//   place = 0
//   for each row i, in order:
//     j = the first visible key >= place with s[i, j] >= 0        a probability of 1/2
//     if there is one:  place = j, w[i, j] = 1                    all other weights are 0
//     else:             w[i, :] = 0, place stays
//
// Rows follow one another, so a workgroup serves a whole (batch, head) pair: workgroup (x) = pair.
// Every key is looked at once over all rows, and each row's visible part is written once. Where it
// departs from that:
//  1. 64 invocations look at 64 keys at a time; the least that one of them finds counts, and a
//     row's search ends with the 64 keys in which something was found.
//  2. Keys without weight get the -0 that stage 3 leaves out (`weights_of_parts`).
//  3. A masked score is below 0 and is never taken.

var<workgroup> sh_found: atomic<u32>;
var<workgroup> sh_place: u32;

const NONE: u32 = 0xffffffffu;

@compute @workgroup_size(64, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let batch = params.batch0 + workgroup.x / params.head_n;
  let head = params.head0 + workgroup.x % params.head_n;
  var place = 0u;
  for (var local_row = 0u; local_row < params.row_n; local_row += 1u) {
    let row = params.row0 + local_row;
    // The visible keys of the 64-row tile: what stages 1 and 3 work on.
    let first = params.row0 + (local_row & ~63u);
    let rows = rows_of(batch, head, first, min(first + 64u, params.row0 + params.row_n) - 1u);
    let visible = key_range(rows);
    let begin = visible.x & ~15u;
    let end = select(0u, min((visible.y + 15u) & ~15u, params.score_stride), visible.y > visible.x);
    let base = (workgroup.x * params.row_n + local_row) * params.score_stride;

    if (lane == 0u) { atomicStore(&sh_found, NONE); }
    workgroupBarrier();
    for (var start = max(place, begin); start < end; start += 64u) {
      let key = start + lane;
      if (key < end) {
        let s = scores[(base + key) >> 2u][key & 3u];
        if (s >= 0.0) { atomicMin(&sh_found, key); }
      }
      workgroupBarrier();
      if (lane == 0u) { sh_place = atomicLoad(&sh_found); }
      if (workgroupUniformLoad(&sh_place) != NONE) { break; }
    }
    if (lane == 0u) { sh_place = atomicLoad(&sh_found); }
    let found = workgroupUniformLoad(&sh_place);
    if (found != NONE) { place = found; }

    for (var i = (begin >> 2u) + lane; i < (end >> 2u); i += 64u) {
      let keys = vec4<u32>(i * 4u, i * 4u + 1u, i * 4u + 2u, i * 4u + 3u);
      scores[(base >> 2u) + i] = weights_of_parts(vec4<f32>(1.0), keys != vec4<u32>(found));
    }
    if (lane == 0u) { inverse_sums[workgroup.x * params.row_n + local_row] = 1.0; }
    if (CAPTURE == CAPTURE_PROBABILITIES) {
      let all_row = (batch * params.heads_q + head) * params.seq_q + row;
      for (var key = lane; key < params.seq_kv; key += 64u) {
        weights_store(all_row * params.seq_kv + key, select(0.0, 1.0, key == found));
      }
    }
  }
}
