// The scores themselves: a weighted sum that is not normalised. LOWEST stands for -inf (common/modify.wgsl).
fn normalize_weight(s: RowVec, m: RowVec, peak: RowVec) -> RowVec {
  return select(s, RowVec(masked()), s == RowVec(LOWEST));
}

fn normalize_factor() -> f32 {
  return 1.0;
}

// Backward:
fn normalize_backward(s: RowVec, w: RowVec, y: RowVec, shift: RowVec) -> RowVec {
  return y;
}
