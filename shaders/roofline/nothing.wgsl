// The least that a dispatch can do: what it costs to start one after another that writes the same place.

@group(0) @binding(0) var<storage, read> given: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> result: array<vec4<f32>>;

@compute @workgroup_size(1)
fn main() {
    result[0] = given[0];
}
