// What the kernels of the fused backward pass do with pairs of which one side is an invocation's own: rows or keys, a
// component of a RowVec each. The straight-line code over registers (`own_*`) is generated, and so is the entry point:
// where subgroups serve, FETCH neighbours load FETCH vec4s of a row of the other side, one each, and broadcast them, as
// `kernel/fused_forward_subgroup.wgsl` does.

// What is known of rows: what weights are relative to, what is added to their gradients, and what they are multiplied
// with.
struct Kept {
  lse: RowVec,
  shift: RowVec,
  scale: RowVec,
}

// What a pair adds: its weight, what its v is weighed with (the weight times the factor of its place), the gradient of
// its score, that score's slope in the product, and the gradient of the product.
struct Shares {
  weight: RowVec,
  of_v: RowVec,
  d_s: RowVec,
  slope: RowVec,
  d_x: RowVec,
}

// From products x of q and k with their scores s, and products y of d_o and v.
fn shares(rows: Rows, row: u32, key: u32, x: RowVec, s: RowVec, y: RowVec, kept: Kept) -> Shares {
  let weight = normalize_weight(s, kept.lse, kept.lse) * kept.scale;
  var factor = RowVec(1.0);
  if (FACTOR) { factor = own_factor(rows, row, key); }
  let d_s = normalize_backward(s, weight, y * factor, kept.shift);
  let slope = own_slopes(x, rows, row, key);
  return Shares(weight, weight * factor, d_s, slope, d_s * slope);
}

fn shown(share: Shares, hidden: RowMask) -> Shares {
  let none = RowVec(0.0);
  return Shares(select(share.weight, none, hidden), select(share.of_v, none, hidden),
    select(share.d_s, none, hidden), select(share.slope, none, hidden), select(share.d_x, none, hidden));
}

// What rows are multiplied with in the end, and what their means lacked.
struct RowEnds {
  scale: RowVec,
  left: RowVec,
}
