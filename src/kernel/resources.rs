//! What a kernel takes of a device: the only place that computes it.
//!
//! wgpu 30 does not check workgroup memory against the limit, so the planner does, with these
//! numbers; a test compares them with the compiler's view of every composed kernel.

use super::bindings::Access;
use super::spec::KernelSpec;

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
        let twin = spec.kernel.twin();
        let (invocations, workgroup_bytes) =
            ((twin.invocations)(spec), (twin.workgroup_bytes)(spec));
        let storage = spec.bindings().iter().filter(|b| b.access != Access::Uniform).count();
        Self { invocations, workgroup_bytes, storage_buffers: storage as u32 }
    }
}
