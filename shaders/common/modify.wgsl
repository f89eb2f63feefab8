// A visible score that overflowed to -inf must not read as masked; only a bias of -inf masks.
fn modify(product: f32, p: Position) -> f32 {
  let capped = score_capped(score_scaled(product, p), p);
  return score_drawn(score_biased(select(capped, LOWEST, is_masked(capped)), p), p);
}
