//! Backward: gradients of matrices.

use super::bindings::Binding;
use super::block_tile::TILE;
use super::element::{Element, Width};
use super::generate::matrix_square::PLAIN_BYTES;
use super::kernels::Kernel;
use super::spec::KernelSpec;
use super::twin::{Family, Twin, common, kernel_file};

pub(super) const TWIN: Twin = Twin {
    family: Family::Alone,
    square: true,
    commons: |_| vec![common!("tile"), common!("tile_selected")],
    // and sh_special
    workgroup_bytes: |_| PLAIN_BYTES + 16,
    grid: |_, work| [work.columns.div_ceil(TILE), work.rows.div_ceil(TILE), 1],
    ..kernel_file!("backward_matrix")
};

impl KernelSpec {
    /// Backward: the gradient of a matrix from those of its products, d, and the rows x that it was multiplied with.
    pub fn backward_matrix(d: Element, x: Element) -> Self {
        let o = Element { width: Width::Single, ..Element::F32X4 };
        Self {
            elements: vec![(Binding::K, d), (Binding::Q, x), (Binding::O, o)],
            ..Self::empty(Kernel::BackwardMatrix)
        }
    }
}
