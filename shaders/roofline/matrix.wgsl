// Rate of matrix units: products of EDGE x EDGE matrices of f16, added to independent f32 sums so that none waits for
// another; nothing is read or written meanwhile. The text that comes before has the types and sizes; the names in
// capital letters below stand for a line per matrix.
//
// Each team works for itself; where it is more than one subgroup, those do and store the same. Sums are stored one by
// one rather than added up, which not every backend can do; workgroups share PLACES places and store the same there.

@group(0) @binding(0) var<storage, read> given: array<f16>;
@group(0) @binding(1) var<storage, read_write> result: array<f32>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    OPERANDS
    for (var i = 0u; i < STEPS; i++) {
        PRODUCTS
    }
    let place = (group.x % PLACES * TEAMS + lane / TEAM) * SUMS * EDGE * EDGE;
    STORES
}
