//! Generated code of the 64 × 64 tile on matrix units: the staged path's products and the layer's projections.

use super::matrix::{aliases, place, tile_array};
use super::steps::Steps;
use crate::kernel::block_tile::TILE;
use crate::kernel::matrix_tile::MatrixTile;
use crate::kernel::spec::KernelSpec;

/// Depth of a step and columns of a strip, as in `shaders/common/tile_matrix.wgsl`.
const DEPTH: u32 = 16;
const STRIP: u32 = 16;
/// Elements between rows of an operand of `DEPTH` columns, of one of 64, and of a strip of sums.
const DEEP_STRIDE: u32 = DEPTH + 8;
const WIDE_STRIDE: u32 = TILE + 8;
const C_STRIDE: u32 = STRIP + 4;

/// Weights are at most 1: 2^15 leaves them eleven bits down to 2^-29.
const WEIGHT_UNIT: &str = "32768.0";

/// How the second operand is put: k and weights of a layer by columns, v by rows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::kernel) enum PutB {
    ByColumns,
    ByRows,
}

/// Bytes of workgroup memory of the plain tile: two operands of 16 × 64 f32, sh_a and sh_b of `common/tile.wgsl`.
pub(in crate::kernel) const PLAIN_BYTES: u32 = 2 * 16 * 64 * 4;

/// Elements of the two operands.
fn operands(put: PutB) -> [u32; 2] {
    let b = match put {
        PutB::ByColumns => TILE * DEEP_STRIDE,
        PutB::ByRows => DEPTH * WIDE_STRIDE,
    };
    [TILE * DEEP_STRIDE, b]
}

/// Bytes of workgroup memory: the plain tile's, and where there are matrix units their operands and sums beside it.
pub(in crate::kernel) fn workgroup_bytes(spec: &KernelSpec, put: PutB) -> u32 {
    let beside = 2 * operands(put).iter().sum::<u32>() + 4 * TILE * C_STRIDE + 16;
    PLAIN_BYTES + if spec.matrix_tile().is_some() { beside } else { 0 }
}

/// What `common/tile_matrix.wgsl` calls, and `tile_finish`, which ends a kernel's loop over depth.
pub(in crate::kernel) fn generated(spec: &KernelSpec, put: PutB) -> Option<(&'static str, String)> {
    spec.matrix_tile().map(|tile| ("generated/matrix", matrix_square(&tile, put)))
}

fn matrix_square(tile: &MatrixTile, put: PutB) -> String {
    let mut out = Steps { text: String::new(), unrolled: tile.unrolled };
    let by_rows = put == PutB::ByRows;
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
    let [a, b] = operands(put);
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
