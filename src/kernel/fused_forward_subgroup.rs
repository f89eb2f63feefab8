//! The same with k and v fetched by subgroups.

use super::fused_forward::{commons, generated, grid, invocations};
use super::generate::glue::fused_glue;
use super::twin::{Family, Twin, kernel_file};

pub(super) const TWIN: Twin = Twin {
    family: Family::Fused,
    commons,
    glue: fused_glue,
    generated,
    invocations,
    grid,
    ..kernel_file!("fused_forward_subgroup")
};
