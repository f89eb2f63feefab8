// State of a row's normaliser: `m` is what weights are relative to, `l` the sum of weights (softmax) or the number of
// keys seen (the others); l = 0 says that nothing was seen.
struct Normalizer {
  m: f32,
  l: f32,
}

// e^x for x <= 0, NaN kept by its bits.
fn exp_rows(x: RowVec) -> RowVec {
  return select(exp2(x * LOG2_E), x, nan_rows(x));
}
