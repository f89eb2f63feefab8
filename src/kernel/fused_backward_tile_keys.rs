//! Backward in one pass on tiles: gradients of k and v.

use super::fused_backward_rows::{bindings, glue};
use super::fused_backward_tile_rows::{commons, workgroup_bytes};
use super::fused_forward::invocations;
use super::generate::own::Own;
use super::generate::tile::tile_backward;
use super::twin::{Family, Twin, Visits, kernel_file};

pub(super) const TWIN: Twin = Twin {
    family: Family::Scores,
    visits: Visits::Tiles,
    backward: true,
    commons,
    bindings,
    glue,
    generated: |spec| Some(("generated/tile", tile_backward(&spec.block_tile()?, spec, Own::Keys))),
    invocations,
    workgroup_bytes,
    grid: |spec, work| {
        let pairs = work.pairs() / work.group.max(1);
        [work.keys.div_ceil(spec.group_rows()), pairs, 1]
    },
    ..kernel_file!("fused_backward_tile_keys")
};
