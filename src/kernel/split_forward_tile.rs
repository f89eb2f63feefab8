//! Rows on tiles, keys split over workgroups.

use super::block_tile::BlockTile;
use super::element::Element;
use super::fused_forward::invocations;
use super::generate::glue::{output_glue, score_glue, weight_glue, whole_glue};
use super::generate::tile::tile;
use super::kernels::Kernel;
use super::spec::KernelSpec;
use super::split_forward::partial_results;
use super::tile::Tile;
use super::twin::{Family, Twin, Visits, common, kernel_file};
use crate::problem::Problem;

pub(super) const TWIN: Twin = Twin {
    family: Family::Scores,
    visits: Visits::Tiles,
    commons: |spec| {
        let mut commons = vec![common!("normalizer"), common!("modify"), common!("shares")];
        commons.extend(spec.is_each().then_some(common!("normalize_each")));
        commons.extend([common!("tile_place"), common!("tile_attend"), common!("tile_share")]);
        commons
    },
    bindings: partial_results,
    glue: |out, spec| {
        score_glue(out, spec);
        whole_glue(out, spec);
        weight_glue(out, spec);
        output_glue(out, spec);
    },
    generated: |spec| spec.block_tile().map(|shape| ("generated/tile", tile(&shape, spec))),
    invocations,
    workgroup_bytes: |spec| {
        spec.block_tile().map_or(0, |tile| tile.workgroup_bytes(spec.selects_values()))
    },
    grid: |spec, work| [work.rows.div_ceil(spec.group_rows()), work.pairs(), work.shares],
    ..kernel_file!("split_forward_tile")
};

impl KernelSpec {
    /// Shares of the keys of many rows, of each head by itself or of all heads of a group.
    pub fn split_tile_forward(
        problem: &Problem,
        elements: [Element; 3],
        tile: BlockTile,
        packs_heads: bool,
    ) -> Self {
        let kernel = match packs_heads {
            true => Kernel::SplitForwardGroup,
            false => Kernel::SplitForwardTile,
        };
        Self::of_a_share(kernel, problem, elements, Tile::Block(tile))
    }
}
