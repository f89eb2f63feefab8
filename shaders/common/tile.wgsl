// The register-blocked tile of every matrix product: C[64 x 64] += A[64 x 16] * B[16 x 64].
//
// 64 invocations as an 8 x 8 grid; invocation (x, y) owns 8 x 8 elements in two strips each way, rows 4y + {0..3} and
// 32 + 4y + {0..3}, columns likewise, so that neighbours read neighbouring vec4s. Per step of depth it reads 4 vec4
// and does 64 fused multiply-adds. Both operands lie depth-major in workgroup memory: sh_a[d * 16 + row / 4] and
// sh_b[d * 16 + column / 4]; 8 KiB together. `half_*`, `tile_products` and `tile_finish` are those of
// common/tile_matrix.wgsl, or do nothing but multiply. The accumulator is indexed by constants only, so that it stays
// in registers.
const TILE: u32 = 64u;
const DEPTH: u32 = 16u;

var<workgroup> sh_a: array<vec4<f32>, 256>;
var<workgroup> sh_b: array<vec4<f32>, 256>;

// Rows 4r..4r+3 of A at depths 4d..4d+3, given as four rows.
fn tile_put_a(r: u32, d: u32, rows: mat4x4<f32>) {
  let columns = transpose(rows);
  let at = d * 64u + r;
  sh_a[at] = columns[0];
  sh_a[at + 16u] = columns[1];
  sh_a[at + 32u] = columns[2];
  sh_a[at + 48u] = columns[3];
  half_put_a(r, d, rows);
}

// The same for B given column by column (K, whose rows are columns of K transposed).
fn tile_put_b_columns(c: u32, d: u32, columns: mat4x4<f32>) {
  let rows = transpose(columns);
  let at = d * 64u + c;
  sh_b[at] = rows[0];
  sh_b[at + 16u] = rows[1];
  sh_b[at + 32u] = rows[2];
  sh_b[at + 48u] = rows[3];
  half_put_b_columns(c, d, columns);
}

// Columns 4c..4c+3 of row d of B.
fn tile_put_b_row(d: u32, c: u32, row: vec4<f32>) {
  sh_b[d * 16u + c] = row;
  half_put_b_row(d, c, row);
}

fn tile_step(acc: ptr<function, array<vec4<f32>, 16>>, d: u32, x: u32, y: u32) {
  let a0 = sh_a[d * 16u + y];
  let a1 = sh_a[d * 16u + 8u + y];
  let b0 = sh_b[d * 16u + x];
  let b1 = sh_b[d * 16u + 8u + x];
  (*acc)[0] = fma(vec4<f32>(a0.x), b0, (*acc)[0]);
  (*acc)[1] = fma(vec4<f32>(a0.x), b1, (*acc)[1]);
  (*acc)[2] = fma(vec4<f32>(a0.y), b0, (*acc)[2]);
  (*acc)[3] = fma(vec4<f32>(a0.y), b1, (*acc)[3]);
  (*acc)[4] = fma(vec4<f32>(a0.z), b0, (*acc)[4]);
  (*acc)[5] = fma(vec4<f32>(a0.z), b1, (*acc)[5]);
  (*acc)[6] = fma(vec4<f32>(a0.w), b0, (*acc)[6]);
  (*acc)[7] = fma(vec4<f32>(a0.w), b1, (*acc)[7]);
  (*acc)[8] = fma(vec4<f32>(a1.x), b0, (*acc)[8]);
  (*acc)[9] = fma(vec4<f32>(a1.x), b1, (*acc)[9]);
  (*acc)[10] = fma(vec4<f32>(a1.y), b0, (*acc)[10]);
  (*acc)[11] = fma(vec4<f32>(a1.y), b1, (*acc)[11]);
  (*acc)[12] = fma(vec4<f32>(a1.z), b0, (*acc)[12]);
  (*acc)[13] = fma(vec4<f32>(a1.z), b1, (*acc)[13]);
  (*acc)[14] = fma(vec4<f32>(a1.w), b0, (*acc)[14]);
  (*acc)[15] = fma(vec4<f32>(a1.w), b1, (*acc)[15]);
}

fn tile_multiply(acc: ptr<function, array<vec4<f32>, 16>>, x: u32, y: u32) {
  for (var d = 0u; d < DEPTH; d += 1u) {
    tile_step(acc, d, x, y);
  }
}

// Row and first column, within the tile, of accumulator i of invocation (x, y).
fn tile_row(i: u32, y: u32) -> u32 {
  let r = i >> 1u;
  return (r >> 2u) * 32u + y * 4u + (r & 3u);
}

fn tile_column(i: u32, x: u32) -> u32 {
  return (i & 1u) * 32u + x * 4u;
}
