// A capped score with its biases. -inf by data must not read as masked, which only a bias of -inf is: it
// becomes LOWEST, and what a bias has made LOWEST becomes the number above it. So at the end of a row the
// largest score says whether all were -inf.
fn biased_score(capped: f32, p: Position) -> f32 {
  let lost = is_masked(capped);
  if (!BIASED) { return select(capped, LOWEST, lost); }
  let biased = score_biased(select(capped, 0.0, lost), p);
  let shown = select(biased, LOWEST_SCORE, biased == LOWEST);
  return select(shown, LOWEST, lost && is_finite(biased));
}

fn modify(product: f32, p: Position) -> f32 {
  return score_drawn(biased_score(score_capped(score_scaled(product, p), p), p), p);
}
