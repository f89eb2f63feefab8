//! Row normaliser by a threshold.

use super::generate::glue::{output_glue, weight_glue};
use super::staged_normalize::{by_four_rows, scratch};
use super::twin::{Twin, common, kernel_file};

pub(super) const TWIN: Twin = Twin {
    commons: |_| vec![common!("row_lanes")],
    bindings: scratch,
    glue: |out, spec| {
        weight_glue(out, spec);
        output_glue(out, spec);
    },
    // sh_m, sh_l and sh_going
    workgroup_bytes: |_| 2 * 64 * 4 + 4,
    grid: by_four_rows,
    ..kernel_file!("staged_threshold")
};
