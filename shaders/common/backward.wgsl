// What the row kernels of the backward pass share: scores again from their products, what comes in
// for their weights, and how gradients are written.

// Products as `staged_score` hands them on, which has LOWEST for -inf.
fn products4(x: vec4<f32>) -> vec4<f32> {
  return select(x, vec4<f32>(masked()), x == vec4<f32>(LOWEST));
}

// Scores of four keys, -inf where they are hidden.
fn scores4(rows: Rows, row: u32, key: u32, x: vec4<f32>) -> vec4<f32> {
  var s = vec4<f32>(masked());
  for (var c = 0u; c < 4u; c += 1u) {
    let p = position_at(rows, row, key + c);
    if (p.key >= params.seq_kv) { break; }
    s[c] = select(masked(), modify(x[c], p), keep(p));
  }
  return s;
}

// What four weights are multiplied with after they are normalised.
fn factors4(rows: Rows, row: u32, key: u32) -> vec4<f32> {
  if (FACTOR) { return weight_factor4(position_at(rows, row, key)); }
  return vec4<f32>(1.0);
}

// The gradient of four weights as they come out of the normaliser.
fn incoming4(rows: Rows, row: u32, key: u32, y: vec4<f32>, factor: vec4<f32>) -> vec4<f32> {
  var sum = y;
  let all_row = (rows.batch * params.heads_q + rows.head) * params.seq_q + row;
  for (var c = 0u; c < 4u && key + c < params.seq_kv; c += 1u) {
    sum[c] += d_weights_load(all_row * params.seq_kv + key + c);
  }
  return sum * factor;
}

// What four keys have in the gradient of the row's centre, from weights w before their factors and the gradient y of
// those.
fn centers4(rows: Rows, row: u32, key: u32, w: vec4<f32>, y: vec4<f32>, none: vec4<bool>) -> f32 {
  if (!CENTERS) { return 0.0; }
  var slope = vec4<f32>(0.0);
  for (var c = 0u; c < 4u; c += 1u) { slope[c] = weight_slope(position_at(rows, row, key + c)); }
  let term = select(w * y * slope, vec4<f32>(0.0), none);
  return (term.x + term.y) + (term.z + term.w);
}

// Writes weights and the gradient of the products of vec4 i, from products x and the gradient d_s of
// their scores; what a mask hides is -0.
fn gradients_store(part: RowPart, i: u32, x: vec4<f32>, w: vec4<f32>, d_s: vec4<f32>, none: vec4<bool>) {
  var d_x = vec4<f32>(0.0);
  var entry = vec4<f32>(0.0);
  for (var c = 0u; c < 4u; c += 1u) {
    let slopes = chain_derivatives(x[c], position_at(part.rows, part.row, i * 4u + c));
    d_x[c] = d_s[c] * slopes.x;
    entry[c] = d_s[c] * slopes.y;
  }
  scores[part.base + i] = weights_of_parts(w, none);
  grads[part.base + i] = weights_of_parts(d_x, none);
  entries_store(part.base + i, select(entry, vec4<f32>(0.0), none));
}

// What the row leaves beside that: its lane's part in the gradient of its centre, no entries where nobody looks, and
// what sums of d_x k are multiplied with.
fn row_end_store(part: RowPart, center: f32) {
  let all_row = (part.rows.batch * params.heads_q + part.rows.head) * params.seq_q + part.row;
  center_sums_store(all_row * LANES + part.slice, center);
  if (ENTRIES) {
    for (var i = part.slice; i < (params.score_stride >> 2u); i += LANES) {
      if (i < part.begin || i >= part.end) { entries_store(part.base + i, vec4<f32>(0.0)); }
    }
  }
  if (part.slice == 0u) { inverse_sums[part.scratch_row] = 1.0; }
}
