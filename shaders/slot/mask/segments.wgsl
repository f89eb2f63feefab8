// Key j is visible to row i iff both lie in the same segment: segments_q[b, i] == segments_kv[b, j].
fn mask_segments(p: Position) -> bool {
  let q = aux_word(params.aux_segments_q + p.batch * params.seq_q + min(p.row, params.seq_q - 1u));
  let kv = aux_word(params.aux_segments_kv + p.batch * params.seq_kv + min(p.key, params.seq_kv - 1u));
  return q == kv;
}

fn mask_segments_range(rows: Rows, keys: vec2<i32>) -> vec2<i32> {
  return keys;
}

fn mask_segments_whole(rows: Rows, keys: vec2<i32>) -> vec2<i32> {
  return vec2<i32>(0);
}
