// The end of a row: the sink joins, and o gets its scale.

// What a row's lse is of: what was seen and the row's sink, or nothing in rows past the query length.
fn row_total(rows: Rows, row: u32, seen: Normalizer) -> Normalizer {
  var total = normalize_empty();
  if (row < rows.q_len) {
    total = normalize_merge(seen, normalize_start(rows.head));
  }
  return total;
}

// Whether o is 0 whatever was summed: in rows that see nothing and in rows past the query length.
fn row_empty(rows: Rows, row: u32, seen: Normalizer) -> bool {
  // Not `!=`, which is false for NaN in some translations: a NaN among the scores must show in o.
  return row >= rows.q_len || seen.l == 0.0;
}

// What o of a row that is not empty is to be multiplied with. It may be 0, beside a large sink, and still meet NaN.
fn row_scale(rows: Rows, row: u32, seen: Normalizer, total: Normalizer) -> f32 {
  return select(normalize_scale(seen, total) * value_scale(rows.head), 0.0, row_empty(rows, row, seen));
}
