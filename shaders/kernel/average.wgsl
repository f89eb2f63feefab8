// y[b, i, j] = mean over h of w[b, h, i, j]: the weights of a layer averaged over its heads.
//
//   w = binding q: [batch, heads, rows * keys] -> y = binding o: [batch, rows * keys], f32
//
// Invocation = one element; workgroup (x, y, z) = (64 elements, 65 535 * 64 elements, batch). Bound by bandwidth.
@compute @workgroup_size(64, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let i = (workgroup.y * 65535u + workgroup.x) * 64u + lane;
  if (i >= params.q_stride_head) { return; }
  var sum = 0.0;
  for (var h = 0u; h < params.head_n; h += 1u) {
    sum += q_load4(params.q_base + workgroup.z * params.q_stride_batch + h * params.q_stride_head + i, 1u).x;
  }
  o_store4(params.o_base + workgroup.z * params.o_stride_batch + i, 1u, vec4<f32>(sum / f32(params.head_n)));
}
