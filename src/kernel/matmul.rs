//! Plain matrix product on the staged tile.

use super::bindings::Binding;
use super::block_tile::TILE;
use super::element::Element;
use super::generate::matrix_square::PLAIN_BYTES;
use super::kernels::Kernel;
use super::spec::KernelSpec;
use super::twin::{Family, Twin, common, kernel_file};

pub(super) const TWIN: Twin = Twin {
    family: Family::Alone,
    square: true,
    commons: |_| vec![common!("tile")],
    workgroup_bytes: |_| PLAIN_BYTES,
    grid: |_, work| [work.columns.div_ceil(TILE), work.rows.div_ceil(TILE), work.batch],
    ..kernel_file!("matmul")
};

impl KernelSpec {
    /// Plain f32 matrix product.
    pub fn matmul(a: Element, b: Element, c: Element) -> Self {
        Self {
            elements: vec![(Binding::Q, a), (Binding::V, b), (Binding::O, c)],
            ..Self::empty(Kernel::Matmul)
        }
    }
}
