// The tile without the products of pairs that have no part: a weight of -0 must not meet NaN or
// infinity. A finite product needs no test, so tiles are multiplied plainly until a value of B is
// special; from then on those weights are left out. The first one only; it fills 16 bytes, as
// matrix units want it of their neighbours.
var<workgroup> sh_special: array<atomic<u32>, 4>;

fn tile_row_selected(acc: ptr<function, array<vec4<f32>, 16>>, i: u32, a: f32, b0: vec4<f32>, b1: vec4<f32>) {
  if (has_no_part(a)) { return; }
  (*acc)[i] = fma(vec4<f32>(a), b0, (*acc)[i]);
  (*acc)[i + 1u] = fma(vec4<f32>(a), b1, (*acc)[i + 1u]);
}

// tile_multiply without the products of keys that have no part. Rare, so its accumulator may live in memory.
fn tile_multiply_selected(acc: ptr<function, array<vec4<f32>, 16>>, x: u32, y: u32) {
  for (var d = 0u; d < DEPTH; d += 1u) {
    for (var r = 0u; r < 8u; r += 1u) {
      let a = sh_a[d * 16u + (r >> 2u) * 8u + y][r & 3u];
      tile_row_selected(acc, r * 2u, a, sh_b[d * 16u + x], sh_b[d * 16u + 8u + x]);
    }
  }
}

// The products of what is in workgroup memory, between the barriers around them.
fn tile_turn(acc: ptr<function, array<vec4<f32>, 16>>, x: u32, y: u32) {
  workgroupBarrier();
  let special = atomicLoad(&sh_special[0]) != 0u;
  tile_products(acc, special, x, y);
  if (special) {
    var selected = *acc;
    tile_multiply_selected(&selected, x, y);
    *acc = selected;
  }
  workgroupBarrier();
}
