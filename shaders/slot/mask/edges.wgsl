// Key j is visible to row i iff there is an edge between them; `edge_forward` visits edges and needs no test.
fn mask_edges(p: Position) -> bool {
  return edge_find(p) != params.edge_count;
}

fn mask_edges_range(rows: Rows, keys: vec2<i32>) -> vec2<i32> {
  return keys;
}

fn mask_edges_whole(rows: Rows, keys: vec2<i32>) -> vec2<i32> {
  return vec2<i32>(0);
}
