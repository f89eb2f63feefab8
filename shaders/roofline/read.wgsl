// Read bandwidth: each workgroup sums a part of the buffer, neighbouring invocations neighbouring vectors.
// `LANES` is the width of a workgroup.

@group(0) @binding(0) var<storage, read> given: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> result: array<vec4<f32>>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let start = group.x * 4096u + lane;
    var a = vec4<f32>();
    var b = vec4<f32>();
    var c = vec4<f32>();
    var d = vec4<f32>();
    for (var i = 0u; i < 4096u; i += 4u * LANES) {
        a += given[start + i];
        b += given[start + i + LANES];
        c += given[start + i + 2u * LANES];
        d += given[start + i + 3u * LANES];
    }
    result[group.x * LANES + lane] = (a + b) + (c + d);
}
