//! Rows of all heads of a group on tiles, keys split over workgroups.

use super::kernels::Kernel;
use super::spec::KernelSpec;
use super::split_forward_tile;
use super::twin::{Twin, kernel_file};

pub(super) const TWIN: Twin = Twin {
    by_group: true,
    grid: |spec, work| {
        let rows = work.rows * work.group;
        [rows.div_ceil(spec.group_rows()), work.pairs() / work.group, work.shares]
    },
    ..split_forward_tile::TWIN.of_file(kernel_file!("split_forward_group"))
};

impl KernelSpec {
    /// Whether the heads of a group are rows of its tiles.
    pub(crate) fn packs_heads(&self) -> bool {
        self.kernel == Kernel::SplitForwardGroup
    }
}
