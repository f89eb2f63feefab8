// Rate of multiply-adds: ten independent chains in few registers, nothing read or written meanwhile. `real` is
// f32 or f16; each line of the loop is there eight times, so that the loop itself costs nothing.

@group(0) @binding(0) var<storage, read> given: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> result: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    // Values that only the buffer knows, so that nothing is computed beforehand.
    let b = vec2<real>(real(given[0].x));
    let c = vec2<real>(real(given[1].x));
    var x0 = vec2<real>(given[2].xy) + vec2<real>(real(lane));
    var x1 = x0 + c;
    var x2 = x1 + c;
    var x3 = x2 + c;
    var x4 = x3 + c;
    for (var i = 0u; i < 64u; i++) {
        ROUNDS
    }
    let sum = (x0 + x1) + (x2 + x3) + x4;
    result[group.x * 64u + lane] = vec4<f32>(vec2<f32>(sum), 0.0, 0.0);
}
