// The end of a row: the sink joins, and o gets its scale.

// What a row's lse is of: what was seen and the row's sink, or nothing in rows past the query length.
fn row_total(rows: Rows, row: u32, seen: Normalizer) -> Normalizer {
  var total = normalize_empty();
  if (row < rows.q_len) {
    total = normalize_merge(seen, normalize_start(rows.head));
  }
  return total;
}

// What o is to be multiplied with; 0 in rows that see nothing and in rows past the query length, whatever was summed there.
fn row_scale(rows: Rows, row: u32, seen: Normalizer, total: Normalizer) -> f32 {
  let scale = normalize_scale(seen, total);
  // Not `!=`, which is false for NaN in some translations: a NaN among the scores must show in o.
  return select(scale, 0.0, row >= rows.q_len || seen.l == 0.0);
}
