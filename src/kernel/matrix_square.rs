//! Generated code of the 64 × 64 tile on matrix units: the staged path's products and the layer's projections.

use super::matrix::{Steps, aliases, place, tile_array};
use super::matrix_tile::MatrixTile;
use super::schedule::Kernel;
use super::spec::TILE;

/// Depth of a step and columns of a strip, as in `shaders/common/tile_matrix.wgsl`.
const DEPTH: u32 = 16;
const STRIP: u32 = 16;
/// Elements between rows of an operand of `DEPTH` columns, of one of 64, and of a strip of sums.
const DEEP_STRIDE: u32 = DEPTH + 8;
const WIDE_STRIDE: u32 = TILE + 8;
const C_STRIDE: u32 = STRIP + 4;

/// Weights are at most 1: 2^15 leaves them eleven bits down to 2^-29.
const WEIGHT_UNIT: &str = "32768.0";

/// Whether B is put row by row (v) rather than column by column (k, weights of a layer).
fn b_by_rows(kernel: Kernel) -> bool {
    kernel == Kernel::StagedValue
}

/// Elements of the two operands.
fn operands(kernel: Kernel) -> [u32; 2] {
    [TILE * DEEP_STRIDE, if b_by_rows(kernel) { DEPTH * WIDE_STRIDE } else { TILE * DEEP_STRIDE }]
}

/// Bytes of workgroup memory beyond the plain tile's.
pub(super) fn workgroup_bytes(kernel: Kernel) -> u32 {
    2 * operands(kernel).iter().sum::<u32>() + 4 * TILE * C_STRIDE + 16
}

/// What `common/tile_matrix.wgsl` calls, and `tile_finish`, which ends a kernel's loop over depth.
pub(super) fn matrix_square(tile: &MatrixTile, kernel: Kernel) -> String {
    let mut out = Steps { text: String::new(), unrolled: tile.unrolled };
    let by_rows = b_by_rows(kernel);
    let b_stride = if by_rows { WIDE_STRIDE } else { DEEP_STRIDE };
    let constants = [
        ("EDGE", tile.edge),
        ("TEAM", tile.team),
        ("TEAM_ROWS", tile.team_rows()),
        ("B_STRIDE", b_stride),
    ];
    for (name, value) in constants {
        out.line(format!("const {name}: u32 = {value}u;"));
    }
    let unit = if by_rows { WEIGHT_UNIT } else { "1.0" };
    out.line(format!("const A_UNIT: f32 = {unit};"));
    aliases(&mut out, tile.edge);
    let [a, b] = operands(kernel);
    tile_array(&mut out, tile, "a", a);
    tile_array(&mut out, tile, "b", b);
    let columns = TILE / tile.edge;
    out.variables("<private>", "matrix_c", tile.blocks * columns, "MatrixC");
    products(&mut out, tile, by_rows, b_stride);
    finish(&mut out, tile);
    out.text
}

fn products(out: &mut Steps, tile: &MatrixTile, by_rows: bool, b_stride: u32) {
    let (edge, columns) = (tile.edge, TILE / tile.edge);
    out.line("fn matrix_products(team_row: u32) {");
    out.repeat("d", DEPTH / edge, |out, d| {
        out.variables("", "a", tile.blocks, "MatrixA");
        out.repeat("i", tile.blocks, |out, i| {
            let at = format!("(team_row + {i} * EDGE) * A_STRIDE + {d} * EDGE");
            let (at, stride) = place(tile, &at, DEEP_STRIDE);
            let a = out.variable("a", &[(i, 1)]);
            out.line(format!("{a} = coopLoadT<MatrixA>(&sh_a16[{at}], {stride});"));
        });
        out.repeat("j", columns, |out, j| {
            let (at, load) = if by_rows {
                (format!("{d} * EDGE * B_STRIDE + {j} * EDGE"), "coopLoadT")
            } else {
                (format!("{j} * EDGE * B_STRIDE + {d} * EDGE"), "coopLoad")
            };
            let (at, stride) = place(tile, &at, b_stride);
            out.line(format!("let b = {load}<MatrixB>(&sh_b16[{at}], {stride});"));
            out.repeat("i", tile.blocks, |out, i| {
                let c = out.variable("matrix_c", &[(i, columns), (j, 1)]);
                let a = out.variable("a", &[(i, 1)]);
                out.line(format!("{c} = coopMultiplyAdd({a}, b, {c});"));
            });
        });
    });
    out.line("}");
}

/// Strip by strip, sums go to the invocations that they belong to.
fn finish(out: &mut Steps, tile: &MatrixTile) {
    let columns = TILE / tile.edge;
    let in_strip = STRIP / tile.edge;
    out.line(
        "fn tile_finish(acc: ptr<function, array<vec4<f32>, 16>>, x: u32, y: u32) {\n\
         let team_row = (y * 8u + x) / TEAM * TEAM_ROWS;",
    );
    out.repeat("strip", TILE / STRIP, |out, strip| {
        out.repeat("j", in_strip, |out, j| {
            out.repeat("i", tile.blocks, |out, i| {
                let c = out.variable("matrix_c", &[(i, columns), (strip, in_strip), (j, 1)]);
                out.line(format!("let c = {c};"));
                out.line(format!("let at = (team_row + {i} * EDGE) * C_STRIDE + {j} * EDGE;"));
                out.line("coopStoreT(c, &sh_c[at], C_STRIDE);");
            });
        });
        out.line("workgroupBarrier();");
        out.line(format!("tile_take(acc, {strip}, x, y);"));
        out.line("workgroupBarrier();");
    });
    out.line("}");
}
