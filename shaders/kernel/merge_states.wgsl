// Results of one call over parts of its keys, joined by their log-sum-exp:
//
//   binding q: o_p [parts, rows, dim_v], parts_lse: lse_p [parts, rows] -> o [rows, dim_v], lse [rows]
//   lse = ln sum exp(lse_p);  o = sum exp(lse_p - lse) o_p
//
// Workgroup x = row, invocations side by side along it. A part that saw nothing (lse -inf) changes nothing, whatever
// its o holds. Parts are summed in their order. Bound by bandwidth.
@compute @workgroup_size(32, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let row = workgroup.y * 65535u + workgroup.x;
  if (row >= params.row_n) { return; }
  var m = LOWEST;
  for (var p = 0u; p < params.split_n; p += 1u) {
    m = max(m, parts_lse[params.parts_lse_base + p * params.row_n + row]);
  }
  var l = 0.0;
  for (var p = 0u; p < params.split_n; p += 1u) {
    let x = parts_lse[params.parts_lse_base + p * params.row_n + row];
    if (is_masked(x)) { continue; }
    l += exp_kept(x - m);
  }
  if (lane == 0u) {
    var joined = m + log(l);
    if (l == 0.0) { joined = masked(); }
    lse_store(row, select(joined, l, is_nan(l)));
  }
  for (var c = lane; c * 4u < params.dim_v; c += 32u) {
    let n = min(params.dim_v - 4u * c, 4u);
    var sum = vec4<f32>(0.0);
    for (var p = 0u; p < params.split_n; p += 1u) {
      let x = parts_lse[params.parts_lse_base + p * params.row_n + row];
      if (is_masked(x)) { continue; }
      let at = params.q_base + (p * params.row_n + row) * params.dim_v + 4u * c;
      sum = fma(vec4<f32>(exp_kept(x - m) / l), q_load4(at, n), sum);
    }
    o_store4(params.o_base + row * params.dim_v + 4u * c, n, sum);
  }
}
