//! One pass on a tile of rows and keys that is register-blocked; no device feature.

use super::block_tile::BlockTile;
use super::element::Element;
use super::fused_forward::{grid, invocations};
use super::generate::glue::fused_glue;
use super::generate::tile::tile;
use super::kernels::Kernel;
use super::spec::{BlockTable, KernelSpec};
use super::tile::Tile;
use super::twin::{Common, Family, Twin, Visits, common, kernel_file};
use crate::problem::Problem;

pub(super) const TWIN: Twin = Twin {
    family: Family::Fused,
    visits: Visits::Tiles,
    commons: |spec| {
        let mut commons = tile_commons(spec);
        commons.extend([common!("tile_place"), common!("tile_attend")]);
        commons
    },
    glue: fused_glue,
    generated: |spec| spec.block_tile().map(|shape| ("generated/tile", tile(&shape, spec))),
    invocations,
    workgroup_bytes: |spec| {
        spec.block_tile().map_or(0, |tile| tile.workgroup_bytes(spec.selects_values()))
    },
    grid,
    ..kernel_file!("fused_forward_tile")
};

/// What the kernels on tiles of rows and keys share.
pub(super) fn tile_commons(spec: &KernelSpec) -> Vec<Common> {
    let mut commons = vec![common!("normalizer"), common!("finish"), common!("modify")];
    commons.extend(spec.is_each().then_some(common!("normalize_each")));
    commons
}

impl KernelSpec {
    /// One pass on a tile of rows and keys.
    pub fn fused_tile(
        problem: &Problem,
        elements: [Element; 4],
        tile: BlockTile,
        blocks: Option<BlockTable>,
    ) -> Self {
        let tile = Tile::Block(tile);
        Self::one_pass(Kernel::FusedForwardTile, problem, elements, tile, blocks)
    }
}
