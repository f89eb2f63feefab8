//! Backward on tiles, each gradient by itself: that of q.

use super::bindings::Binding;
use super::element::Element;
use super::fused_backward_rows::spec;
use super::fused_backward_tile_rows;
use super::kernels::Kernel;
use super::spec::KernelSpec;
use super::tile::Tile;
use super::twin::{Twin, kernel_file};
use crate::problem::Problem;

pub(super) const TWIN: Twin =
    fused_backward_tile_rows::TWIN.of_file(kernel_file!("fused_backward_tile_queries"));

impl KernelSpec {
    /// Backward on tiles: the gradient of q alone, of rows that [`KernelSpec::fused_backward_rows`] has gone over.
    pub(crate) fn fused_backward_queries(
        problem: &Problem,
        read: [Element; 4],
        d_q: Element,
        tile: Tile,
    ) -> Self {
        let mut spec = spec(Kernel::FusedBackwardTileQueries, problem, read, tile);
        spec.elements.push((Binding::O, d_q));
        spec
    }
}
