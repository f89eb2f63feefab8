// Matrix units for the tile of common/tile.wgsl: what is put there goes to operands of f16 as well, and a step of DEPTH
// is a few products of EDGE x EDGE matrices with f32 sums, whose rows are a team's.
//
// An operand that does not fit f16 is seen as it is put; from then on this workgroup multiplies plainly, from the f32
// tile. Rows of operands lie 16 bytes apart from a power of two, so that they start in different banks.
const A_STRIDE: u32 = DEPTH + 8u;
const STRIP: u32 = 16u;
const C_STRIDE: u32 = STRIP + 4u;

// Strips of the sums, 64 rows by 16 columns.
var<workgroup> sh_c: array<f32, TILE * C_STRIDE>;
// The first says it. Arrays fill whole 16 bytes, so that the next one starts where matrix loads may.
var<workgroup> sh_unfit: array<atomic<u32>, 4>;

// Whether anything is past the largest f16; what is infinite or NaN is so in f16 too.
fn unfit4(x: vec4<f32>) -> bool {
  let bits = bitcast<vec4<u32>>(x) & vec4<u32>(0x7fffffffu);
  return any(bits > vec4<u32>(0x477fe000u) & bits < vec4<u32>(0x7f800000u));
}

fn half4(x: vec4<f32>) -> vec4<f16> {
  if (unfit4(x)) { atomicStore(&sh_unfit[0], 1u); }
  return vec4<f16>(x);
}

fn half_begin(lane: u32) {
  if (lane == 0u) { atomicStore(&sh_unfit[0], 0u); }
  workgroupBarrier();
}

fn half_put_a(r: u32, d: u32, rows: mat4x4<f32>) {
  for (var i = 0u; i < 4u; i += 1u) {
    a_put4((4u * r + i) * A_STRIDE + 4u * d, half4(rows[i] * A_UNIT));
  }
}

// Columns of B lie as rows do in A.
fn half_put_b_columns(c: u32, d: u32, columns: mat4x4<f32>) {
  for (var i = 0u; i < 4u; i += 1u) {
    b_put4((4u * c + i) * B_STRIDE + 4u * d, half4(columns[i]));
  }
}

fn half_put_b_row(d: u32, c: u32, row: vec4<f32>) {
  b_put4(d * B_STRIDE + 4u * c, half4(row));
}

// One step of DEPTH, unless the kernel has computed it otherwise.
fn tile_products(acc: ptr<function, array<vec4<f32>, 16>>, done: bool, x: u32, y: u32) {
  let plain = atomicLoad(&sh_unfit[0]) != 0u;
  if (plain && !done) {
    var sums = *acc;
    tile_multiply(&sums, x, y);
    *acc = sums;
  }
  // A loop of none or one: the compiler wants uniform conditions around matrix operations and does not see that this
  // is.
  for (var products = 0u; products < select(1u, 0u, plain || done); products += 1u) {
    matrix_products((y * 8u + x) / TEAM * TEAM_ROWS);
  }
}

// One strip of the sums to whom they belong.
fn tile_take(acc: ptr<function, array<vec4<f32>, 16>>, strip: u32, x: u32, y: u32) {
  for (var i = 0u; i < 16u; i += 1u) {
    let column = tile_column(i, x);
    if (column / STRIP == strip) {
      let at = tile_row(i, y) * C_STRIDE + column % STRIP;
      (*acc)[i] += vec4<f32>(sh_c[at], sh_c[at + 1u], sh_c[at + 2u], sh_c[at + 3u]) / A_UNIT;
    }
  }
}
