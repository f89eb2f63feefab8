//! One pass with an online softmax, rows in registers, k and v fetched by subgroups.

use super::fused_forward;
use super::twin::{Twin, kernel_file};

pub(super) const TWIN: Twin = fused_forward::TWIN.of_file(kernel_file!("fused_forward_subgroup"));
