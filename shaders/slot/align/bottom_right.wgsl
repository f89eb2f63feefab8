// The last row meets the last key of its own sequence.
fn align_bottom_right(batch: u32, q_len: u32, kv_len: u32, given: i32) -> i32 {
  return i32(kv_len) - i32(q_len);
}
