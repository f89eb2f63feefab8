// What the kernels of the fused backward pass on tiles share. Four rows of a strip and a key, or four keys and a row,
// are a RowVec of pairs.

// What pairs add to the sums of rows, and what the other side's rows are weighed with: the gradient of the product, and
// for v the weight, or for what corrects the gradient of q the weight times the score's slope.
struct Pairs {
  weight: RowVec,
  d_s: RowVec,
  d_x: RowVec,
  other: RowVec,
}

fn pairs_of(share: Shares) -> Pairs {
  let other = select(share.of_v, share.weight * share.slope, OWNS_ROWS);
  return Pairs(share.weight, share.d_s, share.d_x, other);
}

// Pairs that all see each other.
fn pairs_whole(rows: Rows, row: u32, key: u32, x: RowVec, y: RowVec, kept: Kept) -> Pairs {
  return pairs_of(shares(rows, row, key, x, own_modify(x, rows, row, key), y, kept));
}

// What is hidden has no part in any sum (`weights_of_parts`), whatever its tensors hold.
fn pairs_shown(rows: Rows, row: u32, key: u32, outside: bool, x: RowVec, y: RowVec, kept: Kept) -> Pairs {
  let s = own_modify(x, rows, row, key);
  let hidden = own_hidden(s, rows, row, key) | RowMask(outside);
  let pairs = pairs_of(shares(rows, row, key, x, s, y, kept));
  let none = RowVec(0.0);
  return Pairs(select(pairs.weight, none, hidden), select(pairs.d_s, none, hidden),
    weights_of_parts(pairs.d_x, hidden), weights_of_parts(pairs.other, hidden));
}
