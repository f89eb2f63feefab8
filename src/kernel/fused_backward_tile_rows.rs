//! Backward in one pass on tiles: gradients of q.

use super::block_tile::BlockTile;
use super::fused_backward_rows::{bindings, glue, pair_commons};
use super::fused_forward::{grid, invocations};
use super::generate::own::Own;
use super::generate::tile::tile_backward;
use super::spec::KernelSpec;
use super::twin::{Common, Family, Twin, Visits, common, kernel_file};

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
    ..kernel_file!("fused_backward_tile_rows")
};

/// What kernels of gradients on tiles share.
pub(super) fn tile_commons(spec: &KernelSpec) -> Vec<Common> {
    let mut commons = pair_commons(spec);
    commons.extend([common!("tile_place"), common!("tile_backward")]);
    commons
}

fn commons(spec: &KernelSpec) -> Vec<Common> {
    let mut commons = tile_commons(spec);
    commons.push(common!("tile_own_rows"));
    commons
}

fn workgroup_bytes(spec: &KernelSpec) -> u32 {
    let widest = |tile: BlockTile| tile.of_dim(tile.dim_qk.max(tile.dim_v));
    spec.block_tile().map_or(0, |tile| widest(tile).workgroup_bytes(spec.selects_values()))
}
