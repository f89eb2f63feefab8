// Backward: the gradients of biases of a graph's edges, summed over sequences and heads.
//
//   entries [block of rows, score_stride] -> d_table [edge_count]
//
// One invocation per edge: it finds its row by bisection and goes through the block's sequences and heads in order, so
// the sums are the same in every run. Edges of rows that the block does not hold are left to others; later blocks that
// touch an edge too add to it. An edge of no row has gradient 0.

// The row of an edge, `seq_q` where it has none.
fn edge_row(edge: u32) -> u32 {
  var low = 0u;
  var high = params.seq_q;
  while (low < high) {
    let middle = (low + high) / 2u;
    if (edges_of(middle).y <= edge) { low = middle + 1u; } else { high = middle; }
  }
  return select(low, params.seq_q, low < params.seq_q && edges_of(low).x > edge);
}

@compute @workgroup_size(64, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let edge = (workgroup.y * 65535u + workgroup.x) * 64u + lane;
  if (edge >= params.edge_count) { return; }
  let row = edge_row(edge);
  let key = edge_key(edge);
  let none = row >= params.seq_q || key >= params.seq_kv;
  let held = row >= params.row0 && row < params.row0 + params.row_n;
  // What no row holds is written with the first block.
  if (!held && !(none && params.row0 == 0u)) { return; }
  let at = params.o_base + edge;
  var sum = 0.0;
  if (params.carry_in == 1u) { sum = d_table[at]; }
  for (var pair = 0u; pair < select(params.bias_batch_n * params.head_n, 0u, none); pair += 1u) {
    let i = (pair * params.row_n + row - params.row0) * params.score_stride + key;
    sum += entries[i >> 2u][i & 3u];
  }
  d_table[at] = sum;
}
