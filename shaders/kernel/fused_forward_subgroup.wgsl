// Fused attention whose subgroups fetch k and v together; `common/fused_rows.wgsl` has the algorithm, shapes and
// mapping are those of `fused_forward`.
//
// FETCH neighbours load FETCH consecutive vec4s of a row of k or v, one each, and every invocation takes all of them
// from lanes 0..FETCH-1 by subgroupBroadcast: FETCH times fewer loads. Right for every subgroup size >= FETCH: an
// invocation loads the vec4 of its own subgroup_invocation_id modulo FETCH, so lane i < FETCH of each subgroup holds
// vec4 i, whatever the size and however many subgroups a workgroup has. The planner takes FETCH no larger than the
// smallest subgroup the adapter reports, and LANES a multiple of FETCH. Sizes 4 and 8 were run; for 16 to 128 the same
// argument holds, as nothing else depends on the size. Broadcasts stand in control flow that is uniform over the
// workgroup (loop bounds from parameters and tables) or over the subgroup (`nobody`), so lanes 0..FETCH-1 are active.
// WIDE: LANES = FETCH, so that a workgroup lies in one subgroup and subgroupAdd sums over it and nothing else.
//
// Measured, f32, 1x8x512x64, 2 cores: Mesa 22.3 75 GFLOP/s (25 without subgroups), Mesa 26.2 85 (61).

// Uniform over the subgroup: broadcasts follow only if some invocation needs them, and then all take part.
fn nobody(none_of_mine: bool) -> bool {
  return subgroupAll(none_of_mine);
}

@compute @workgroup_size(LANES, 1, 1)
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
  @builtin(subgroup_invocation_id) subgroup_lane: u32,
) {
  forward(workgroup, lane, subgroup_lane & (FETCH - 1u));
}
