// s + edge_bias[e], e the edge between row and key; nothing where there is none.
fn score_edges(s: f32, p: Position) -> f32 {
  let edge = edge_of(p);
  if (edge >= params.edge_count) { return s; }
  return s + bitcast<f32>(aux_word(params.aux_edge_bias + edge));
}
