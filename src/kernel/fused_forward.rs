//! One pass with an online softmax, rows in registers; no device feature.

use super::bindings::Binding;
use super::element::{Element, RowTile};
use super::generate::glue::fused_glue;
use super::generate::registers::registers;
use super::kernels::Kernel;
use super::spec::{BlockTable, KernelSpec};
use super::tile::Tile;
use super::twin::{Common, Family, Twin, Work, common, kernel_file};
use crate::feature::mask::edges;
use crate::problem::Problem;

pub(super) const TWIN: Twin = Twin {
    family: Family::Fused,
    commons,
    glue: fused_glue,
    generated,
    invocations,
    grid,
    ..kernel_file!("fused_forward")
};

/// What the row kernels share.
pub(super) fn commons(spec: &KernelSpec) -> Vec<Common> {
    let mut commons =
        vec![common!("normalizer"), common!("finish"), common!("modify"), common!("fused_rows")];
    commons.extend(spec.is_each().then_some(common!("normalize_each")));
    commons
}

pub(super) fn generated(spec: &KernelSpec) -> Option<(&'static str, String)> {
    spec.row_tile().map(|rows| ("generated/registers", registers(&rows, spec)))
}

/// What every one-pass kernel has: workgroups of the tile's rows.
pub(super) fn invocations(spec: &KernelSpec) -> u32 {
    spec.tile.map_or(64, |tile| tile.lanes())
}

pub(super) fn grid(spec: &KernelSpec, work: &Work) -> [u32; 3] {
    [work.rows.div_ceil(spec.group_rows()), work.pairs(), 1]
}

impl KernelSpec {
    /// One pass: scores, softmax and weighted sums of a block of rows.
    pub fn fused(
        problem: &Problem,
        elements: [Element; 4],
        rows: RowTile,
        blocks: Option<BlockTable>,
    ) -> Self {
        let a = problem.attention();
        let kernel = match (a.edges.is_some(), rows.fetch > 1) {
            (true, _) => Kernel::EdgeForward,
            (false, true) => Kernel::FusedForwardSubgroup,
            (false, false) => Kernel::FusedForward,
        };
        // What is visited along edges needs no look at the edges.
        let mut ranged = Self::scored(kernel, problem);
        ranged.masks.retain(|mask| *mask != edges::SLOT);
        let names = [Binding::Q, Binding::K, Binding::V, Binding::O];
        Self {
            elements: names.into_iter().zip(elements).collect(),
            sink: a.sinks,
            lse: a.lse,
            blocks,
            edges: a.edges.is_some(),
            tile: Some(Tile::Rows(rows)),
            ..ranged
        }
    }
}
