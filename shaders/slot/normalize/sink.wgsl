// The row starts with one logit of its head already seen; that logit has no value vector.
fn normalize_sink(head: u32) -> Normalizer {
  return Normalizer(bitcast<f32>(aux_word(params.aux_sinks + head)), 1.0);
}
