// One offset per sequence; clamped so that position arithmetic stays within i32 whatever the table holds.
fn align_per_batch(batch: u32, q_len: u32, kv_len: u32, given: i32) -> i32 {
  return clamp(bitcast<i32>(aux_word(params.aux_offsets + batch)), -MAX_OFFSET, MAX_OFFSET);
}
