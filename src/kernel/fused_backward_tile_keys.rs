//! Backward in one pass on tiles: gradients of k and v.

use super::fused_backward_tile_rows::{self, tile_commons};
use super::generate::own::Own;
use super::generate::tile::tile_backward;
use super::twin::{Twin, kernel_file};

pub(super) const TWIN: Twin = Twin {
    commons: tile_commons,
    generated: |spec| Some(("generated/tile", tile_backward(&spec.block_tile()?, spec, Own::Keys))),
    grid: |spec, work| {
        let pairs = work.pairs() / work.group.max(1);
        [work.keys.div_ceil(spec.group_rows()), pairs, 1]
    },
    ..fused_backward_tile_rows::TWIN.of_file(kernel_file!("fused_backward_tile_keys"))
};
