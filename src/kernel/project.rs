//! A linear layer.

use super::bindings::Binding;
use super::block_tile::TILE;
use super::element::Element;
use super::generate::function;
use super::generate::matrix_square::{self as square, PutB};
use super::kernels::Kernel;
use super::matrix_tile::MatrixTile;
use super::spec::KernelSpec;
use super::tile::Tile;
use super::twin::{Family, Twin, common, kernel_file};
use crate::feature::Parameter;

/// Where the matrix starts, and elements between its rows.
pub(crate) const PROJECTION_BASE: Parameter = Parameter::u32("projection_base");
pub(crate) const PROJECTION_STRIDE_ROW: Parameter = Parameter::u32("projection_stride_row");

pub(super) const TWIN: Twin = Twin {
    family: Family::Alone,
    square: true,
    commons: |spec| {
        let mut commons = vec![common!("tile")];
        commons.extend(spec.matrix_tile().is_some().then_some(common!("tile_matrix")));
        commons
    },
    glue: |out, spec| {
        let body = if spec.added { "return bias[params.bias_base + c];" } else { "return 0.0;" };
        function(out, "added(c: u32) -> f32", body);
    },
    generated: |spec| square::generated(spec, PutB::ByColumns),
    workgroup_bytes: |spec| square::workgroup_bytes(spec, PutB::ByColumns),
    grid: |_, work| [work.columns.div_ceil(TILE), work.rows.div_ceil(TILE), work.batch],
    parameters: &[PROJECTION_BASE, PROJECTION_STRIDE_ROW],
    ..kernel_file!("project")
};

impl KernelSpec {
    /// y = x Wᵀ, and a vector added to each row; on matrix units where a tile is given.
    pub fn project([x, w, y]: [Element; 3], added: bool, matrix: Option<MatrixTile>) -> Self {
        Self {
            elements: vec![(Binding::Q, x), (Binding::Projection, w), (Binding::O, y)],
            added,
            tile: matrix.map(Tile::Matrix),
            ..Self::empty(Kernel::Project)
        }
    }
}
