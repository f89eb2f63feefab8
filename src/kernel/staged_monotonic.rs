//! Row normaliser that goes forward from row to row.

use super::generate::glue::output_glue;
use super::staged_normalize::scratch;
use super::twin::{Twin, kernel_file};

pub(super) const TWIN: Twin = Twin {
    bindings: scratch,
    glue: output_glue,
    // sh_found and sh_place
    workgroup_bytes: |_| 8,
    grid: |_, work| [work.pairs(), 1, 1],
    ..kernel_file!("staged_monotonic")
};
