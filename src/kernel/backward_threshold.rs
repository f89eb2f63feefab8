//! Backward: weights and gradients of scores by a threshold.

use super::backward_row::{bindings, glue};
use super::staged_normalize::by_four_rows;
use super::twin::{Twin, common, kernel_file};

pub(super) const TWIN: Twin = Twin {
    backward: true,
    commons: |_| vec![common!("modify"), common!("row_lanes"), common!("backward")],
    bindings,
    glue,
    // sh_m, sh_l and sh_going
    workgroup_bytes: |_| 2 * 64 * 4 + 4,
    grid: by_four_rows,
    ..kernel_file!("backward_threshold")
};
