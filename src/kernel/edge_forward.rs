//! One pass along the edges of a graph: a row kernel that visits the keys of its own row.

use super::fused_forward;
use super::twin::{Twin, kernel_file};

pub(super) const TWIN: Twin = fused_forward::TWIN.of_file(kernel_file!("edge_forward"));
