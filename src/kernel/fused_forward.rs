//! One pass with an online softmax, rows in registers; no device feature.

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
fn commons(spec: &KernelSpec) -> Vec<Common> {
    let mut commons =
        vec![common!("normalizer"), common!("finish"), common!("modify"), common!("fused_rows")];
    commons.extend(spec.is_each().then_some(common!("normalize_each")));
    commons
}

fn generated(spec: &KernelSpec) -> Option<(&'static str, String)> {
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
        let along_edges = problem.attention().masks.edges.is_some();
        let kernel = match (along_edges, rows.fetch > 1) {
            (true, _) => Kernel::EdgeForward,
            (false, true) => Kernel::FusedForwardSubgroup,
            (false, false) => Kernel::FusedForward,
        };
        let mut spec = Self::one_pass(kernel, problem, elements, Tile::Rows(rows), blocks);
        // What is visited along edges needs no look at the edges.
        spec.masks.retain(|mask| *mask != edges::SLOT);
        spec
    }
}
