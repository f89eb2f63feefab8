//! What a kernel takes of a device: the only place that computes it.
//!
//! wgpu 30 does not check workgroup memory against the limit, so the planner does, with these
//! numbers; a test compares them with the compiler's view of every composed kernel.

use super::bindings::{Access, Binding};
use super::element::Element;
use super::matrix_square;
use super::schedule::Kernel;
use super::spec::KernelSpec;
use crate::tensor::Storage;

/// Invocations, workgroup memory and storage bindings of one kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resources {
    /// Invocations per workgroup.
    pub invocations: u32,
    /// Bytes of workgroup memory.
    pub workgroup_bytes: u32,
    /// Storage buffers bound.
    pub storage_buffers: u32,
}

impl Resources {
    /// What the kernel of `spec` takes.
    pub fn of(spec: &KernelSpec) -> Self {
        // Two operands of 16 × 64 f32 each: sh_a and sh_b of common/tile.wgsl.
        let tile = 2 * 16 * 64 * 4;
        let workgroup_bytes = match spec.kernel {
            Kernel::StagedScore | Kernel::Project | Kernel::Matmul => tile,
            // sh_special
            Kernel::StagedValue => tile + 16,
            // sh_m and sh_l, one f32 per invocation each
            Kernel::StagedNormalize => 2 * 64 * 4,
            // and sh_going
            Kernel::StagedThreshold => 2 * 64 * 4 + 4,
            // sh_some and sh_hidden; sh_found and sh_place
            Kernel::Classify | Kernel::StagedMonotonic => 8,
            Kernel::FusedForwardTile => {
                spec.tile.map_or(0, |tile| tile.workgroup_bytes(spec.selects_values()))
            }
            Kernel::FusedForwardMatrix => spec.matrix.map_or(0, |tile| tile.workgroup_bytes()),
            Kernel::SplitForward => spec.split.map_or(0, |tile| tile.workgroup_bytes()),
            // sh_most, where a row has one scale
            Kernel::CacheAppend => {
                let int8 =
                    |x: &(Binding, Element)| x.0 == Binding::O && x.1.storage == Storage::Int8;
                if spec.elements.iter().any(int8) { 32 * 4 } else { 0 }
            }
            Kernel::Prepare | Kernel::Average | Kernel::SplitMerge => 0,
            Kernel::CacheAdvance | Kernel::CacheCopy | Kernel::MergeStates => 0,
            Kernel::OwnFunctions => 0,
            // Rows live in registers.
            Kernel::FusedForward | Kernel::FusedForwardSubgroup | Kernel::EdgeForward => 0,
        };
        let on_matrix = spec.kernel.uses_tile() && spec.matrix.is_some();
        let beside = if on_matrix { matrix_square::workgroup_bytes(spec.kernel) } else { 0 };
        let workgroup_bytes = workgroup_bytes + beside;
        let matrix = spec.matrix.filter(|_| spec.kernel == Kernel::FusedForwardMatrix);
        let lanes = spec.rows.map(|x| x.lanes).or(spec.split.map(|x| x.lanes));
        let lanes = lanes.or(matrix.map(|x| x.lanes())).or(spec.tile.map(|x| x.lanes()));
        let few = [Kernel::SplitMerge, Kernel::MergeStates, Kernel::CacheAppend];
        let invocations = lanes.unwrap_or(if few.contains(&spec.kernel) { 32 } else { 64 });
        let storage = spec.bindings().iter().filter(|b| b.access != Access::Uniform).count();
        Self { invocations, workgroup_bytes, storage_buffers: storage as u32 }
    }
}
