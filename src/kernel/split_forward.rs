//! Few rows, keys split over workgroups.

use super::bindings::{Access, Binding};
use super::element::{Element, SplitTile};
use super::fused_forward::invocations;
use super::generate::glue::{output_glue, score_glue, weight_glue};
use super::generate::split::split;
use super::kernels::Kernel;
use super::spec::KernelSpec;
use super::tile::Tile;
use super::twin::{Family, Twin, Visits, common, kernel_file};
use crate::feature::Parameter;
use crate::problem::Problem;

/// Shares that keys are split into, and keys of a share, 0 for even ones. Where parts are merged it is their
/// number, and that of sequences where functions are asked.
pub(crate) const SPLIT_N: Parameter = Parameter::u32("split_n");
pub(crate) const SPLIT_SIZE: Parameter = Parameter::u32("split_size");

pub(super) const TWIN: Twin = Twin {
    family: Family::Scores,
    visits: Visits::Keys,
    by_group: true,
    commons: |spec| {
        let mut commons = vec![common!("normalizer"), common!("modify"), common!("shares")];
        commons.extend(spec.is_each().then_some(common!("normalize_each")));
        commons
    },
    bindings: partial_results,
    glue: |out, spec| {
        score_glue(out, spec);
        weight_glue(out, spec);
        output_glue(out, spec);
    },
    generated: |spec| spec.split_tile().map(|tile| ("generated/split", split(&tile, spec))),
    invocations,
    workgroup_bytes: |spec| spec.split_tile().map_or(0, |tile| tile.workgroup_bytes()),
    grid: |spec, work| {
        let row_blocks = (work.group * work.rows).div_ceil(spec.group_rows());
        [work.shares, work.pairs() / work.group * row_blocks, 1]
    },
    parameters: &[SPLIT_N, SPLIT_SIZE],
    ..kernel_file!("split_forward")
};

/// Sums of o and states of the normaliser, of each share.
pub(super) fn partial_results(_: &KernelSpec) -> Vec<(Binding, Access)> {
    vec![(Binding::Partials, Access::ReadWrite), (Binding::States, Access::ReadWrite)]
}

impl KernelSpec {
    /// Shares of the keys of a few rows.
    pub fn split_forward(problem: &Problem, elements: [Element; 3], tile: SplitTile) -> Self {
        Self::of_a_share(Kernel::SplitForward, problem, elements, Tile::Split(tile))
    }

    /// A kernel that makes scores of a share of the keys, weighs them and sums v.
    pub(super) fn of_a_share(
        kernel: Kernel,
        problem: &Problem,
        elements: [Element; 3],
        tile: Tile,
    ) -> Self {
        Self {
            elements: [Binding::Q, Binding::K, Binding::V].into_iter().zip(elements).collect(),
            tile: Some(tile),
            ..Self::scored(kernel, problem)
        }
    }
}
