// What the row kernels of the backward pass share: scores again from their products, and what comes
// in for their weights.

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
  var f = vec4<f32>(1.0);
  if (FACTOR) {
    for (var c = 0u; c < 4u; c += 1u) { f[c] = weight_factor(position_at(rows, row, key + c)); }
  }
  return f;
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
