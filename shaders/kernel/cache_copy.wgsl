// A page to another place of the same cache: key_n words from word key0 to word o_base. Invocation = one word.
@compute @workgroup_size(64, 1, 1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let i = (workgroup.y * 65535u + workgroup.x) * 64u + lane;
  if (i < params.key_n) { o[params.o_base + i] = o[params.key0 + i]; }
}
