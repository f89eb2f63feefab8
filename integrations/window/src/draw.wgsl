// The picture, lit where the pixel under the pointer looks; a frame around that pixel; what it gathered in a corner.

struct View {
    // Of the target, in pixels of the screen.
    size: vec2f,
    // The pixel of the picture that looks.
    query: vec2f,
}

@group(0) @binding(0) var<uniform> view: View;
@group(0) @binding(1) var<storage, read> picture: array<vec4f>;
@group(0) @binding(2) var<storage, read> weights: array<f32>;
@group(0) @binding(3) var<storage, read> gathered: array<vec4f>;

@vertex
fn cover(@builtin(vertex_index) i: u32) -> @builtin(position) vec4f {
    return vec4f(f32(i & 1u) * 4.0 - 1.0, f32(i >> 1u) * 4.0 - 1.0, 0.0, 1.0);
}

@fragment
fn lit(@builtin(position) position: vec4f) -> @location(0) vec4f {
    let at = floor(position.xy / view.size * vec2f(WIDTH, HEIGHT));
    let off = max(abs(at.x - view.query.x), abs(at.y - view.query.y));
    if (off == 2.0) { return vec4f(1.0); }
    if (at.x < 10.0 && at.y < 10.0) { return vec4f(gathered[0].rgb, 1.0); }
    let i = u32(at.y) * u32(WIDTH) + u32(at.x);
    // A weight of 1/n is an even look.
    let look = weights[i] * WIDTH * HEIGHT;
    let light = look / (1.0 + look);
    return vec4f(picture[i].rgb * (0.15 + 0.85 * light) + vec3f(0.2, 0.1, 0.0) * light, 1.0);
}
