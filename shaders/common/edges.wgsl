// A graph in compressed rows: the keys of query row i are edge_keys[edge_starts[i]..edge_starts[i + 1]], ascending.
// Starts past the end, and rows past the table, have no edges.
fn edges_of(row: u32) -> vec2<u32> {
  if (row >= params.seq_q) { return vec2<u32>(0u); }
  let first = min(aux_word(params.aux_edge_starts + row), params.edge_count);
  let end = min(aux_word(params.aux_edge_starts + row + 1u), params.edge_count);
  return vec2<u32>(first, max(first, end));
}

fn edge_key(edge: u32) -> u32 {
  return aux_word(params.aux_edge_keys + edge);
}

// The edge from a row to a key, by bisection; `edge_count` where there is none.
fn edge_find(p: Position) -> u32 {
  let all = edges_of(p.row);
  var low = all.x;
  var high = all.y;
  while (low < high) {
    let middle = (low + high) / 2u;
    if (edge_key(middle) < p.key) { low = middle + 1u; } else { high = middle; }
  }
  if (low < all.y && edge_key(low) == p.key) { return low; }
  return params.edge_count;
}
