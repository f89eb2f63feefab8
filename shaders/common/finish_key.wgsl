// Stores four of the `dim` columns of a key's gradient, or hands them on when more rows are to come; `pair` counts
// sequences and heads of k.
fn finish_key(pair: u32, batch: u32, head: u32, key: u32, column: u32, dim: u32, sum: vec4<f32>) {
  var total = sum;
  if (CARRY) {
    let at = (pair * params.seq_kv + key) * ((dim + 3u) >> 2u) + (column >> 2u);
    if (params.carry_in == 1u) { total += carry_load(at); }
    if (params.carry_out == 1u) {
      carry_store(at, total);
      return;
    }
  }
  // Where a sequence starts is known of k, whose batches and rows are strided as these are.
  let at = params.o_base + k_origin(batch) + head * params.o_stride_head + key * params.o_stride_row;
  o_store4(at + column, min(dim - column, 4u), total);
}
