//! One pass along the edges of a graph.

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
    ..kernel_file!("edge_forward")
};
