//! One pass with both products on matrix units.

use super::element::Element;
use super::fused_forward::{grid, invocations};
use super::fused_forward_tile::tile_commons;
use super::generate::glue::fused_glue;
use super::generate::matrix::matrix;
use super::kernels::Kernel;
use super::matrix_tile::MatrixTile;
use super::spec::{BlockTable, KernelSpec};
use super::tile::Tile;
use super::twin::{Family, Twin, Visits, kernel_file};
use crate::problem::Problem;

pub(super) const TWIN: Twin = Twin {
    family: Family::Fused,
    visits: Visits::TestedTiles,
    commons: tile_commons,
    glue: fused_glue,
    generated: |spec| spec.matrix_tile().map(|tile| ("generated/matrix", matrix(&tile, spec))),
    invocations,
    workgroup_bytes: |spec| spec.matrix_tile().map_or(0, |tile| tile.workgroup_bytes()),
    grid,
    ..kernel_file!("fused_forward_matrix")
};

impl KernelSpec {
    /// One pass with both products on matrix units.
    pub fn fused_matrix(problem: &Problem, elements: [Element; 4], tile: MatrixTile) -> Self {
        let blocks = problem.attention().masks.blocks.map(|_| BlockTable::Given);
        let tile = Tile::Matrix(tile);
        Self::one_pass(Kernel::FusedForwardMatrix, problem, elements, tile, blocks)
    }
}
