//! Backward on tiles, each gradient by itself: that of q.

use super::bindings::Binding;
use super::element::Element;
use super::fused_backward_rows::{bindings, glue, spec};
use super::fused_backward_tile_rows::{commons, workgroup_bytes};
use super::fused_forward::{grid, invocations};
use super::generate::own::Own;
use super::generate::tile::tile_backward;
use super::kernels::Kernel;
use super::spec::KernelSpec;
use super::tile::Tile;
use super::twin::{Family, Twin, Visits, kernel_file};
use crate::problem::Problem;

pub(super) const TWIN: Twin = Twin {
    family: Family::Scores,
    visits: Visits::Tiles,
    backward: true,
    commons,
    bindings,
    glue,
    generated: |spec| Some(("generated/tile", tile_backward(&spec.block_tile()?, spec, Own::Rows))),
    invocations,
    workgroup_bytes,
    grid,
    ..kernel_file!("fused_backward_tile_queries")
};

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
