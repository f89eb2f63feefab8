// Key j is visible to row i iff it lies before the tree's keys, or is that of node i or of one above it: node a's key
// is a + diagonal, and parents[b, i] < i.
fn mask_tree(p: Position) -> bool {
  let key = i32(p.key) - p.diagonal;
  if (key < 0) { return true; }
  let table = params.aux_parents + p.batch * params.tree_stride;
  var node = min(i32(p.row), i32(params.seq_q) - 1);
  while (node > key) {
    // Whatever the table holds, a walk goes down and ends.
    let parent = bitcast<i32>(aux_word(table + u32(node)));
    node = select(-1, parent, parent < node);
  }
  return node == key;
}

fn mask_tree_range(rows: Rows, keys: vec2<i32>) -> vec2<i32> {
  return vec2<i32>(keys.x, min(keys.y, i32(rows.last) + rows.diagonal + 1));
}

fn mask_tree_whole(rows: Rows, keys: vec2<i32>) -> vec2<i32> {
  return vec2<i32>(keys.x, min(keys.y, rows.diagonal));
}
