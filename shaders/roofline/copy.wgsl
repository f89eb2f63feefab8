// Copy bandwidth: every vector is read once and written once. `LANES` is the width of a workgroup.

@group(0) @binding(0) var<storage, read> given: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> result: array<vec4<f32>>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let start = group.x * 4096u + lane;
    for (var i = 0u; i < 4096u; i += LANES) {
        result[start + i] = given[start + i];
    }
}
