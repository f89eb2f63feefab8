//! What a device can do, as plain data.

use std::fmt;

use crate::tensor::DType;

/// The facts about a device that planning depends on; its defaults are WebGPU's guaranteed limits.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Capabilities {
    /// Adapter name.
    pub name: String,
    /// Backend: vulkan, metal, dx12, gl, webgpu.
    pub backend: String,
    /// Driver name and version.
    pub driver: String,
    /// Kind of device: discrete, integrated, virtual, cpu, other.
    pub device_type: String,
    /// Native f16 in shaders.
    pub shader_f16: bool,
    /// Subgroup operations in compute shaders.
    pub subgroups: bool,
    /// Smallest and largest subgroup size.
    pub subgroup_size: [u32; 2],
    /// Timestamps at the ends of compute passes.
    pub timestamps: bool,
    /// Largest storage binding, bytes.
    pub max_binding_bytes: u64,
    /// Largest buffer, bytes.
    pub max_buffer_bytes: u64,
    /// Alignment of storage binding offsets, bytes.
    pub storage_alignment: u64,
    /// Alignment of uniform binding offsets, bytes.
    pub uniform_alignment: u64,
    /// Storage buffers per shader stage.
    pub max_storage_buffers: u32,
    /// Workgroup memory, bytes.
    pub max_workgroup_bytes: u32,
    /// Invocations per workgroup.
    pub max_invocations: u32,
    /// Workgroups per dimension of a dispatch.
    pub max_workgroups: u32,
    /// Iterations of all loops together after which the driver ends an invocation's loops, whatever their condition
    /// says.
    pub max_loop_iterations: u32,
    /// Matrix units of real numbers, as [`Engine::with_matrix_units`](crate::Engine::with_matrix_units) was told of
    /// them; empty where the device was opened without them.
    #[cfg_attr(feature = "serde", serde(default))]
    pub matrix_units: Vec<MatrixUnit>,
}

/// A product of two small matrices that subgroups compute together: C (m x n) += A (m x k) * B (k x n).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct MatrixUnit {
    /// m, n and k.
    pub size: [u32; 3],
    /// Type of A and B.
    pub operands: DType,
    /// Type of C.
    pub sums: DType,
}

impl Capabilities {
    /// Edge of the largest cube that multiplies f16 and sums in f32, 16 or 8: the ones that WGSL can name.
    pub fn matrix_edge(&self) -> Option<u32> {
        [16, 8].into_iter().find(|edge| self.has_matrices(*edge))
    }

    /// Whether there are such cubes of an edge.
    pub(crate) fn has_matrices(&self, edge: u32) -> bool {
        let wanted = MatrixUnit { size: [edge; 3], operands: DType::F16, sums: DType::F32 };
        self.matrix_units.contains(&wanted)
    }

    /// Whether ranges of one buffer that a dispatch binds writable may not overlap: browsers check it.
    pub(crate) fn refuses_overlaps(&self) -> bool {
        self.backend == "webgpu"
    }
}

impl fmt::Display for MatrixUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [m, n, k] = self.size;
        write!(f, "{m}x{n}x{k} {} -> {}", self.operands, self.sums)
    }
}

impl Default for Capabilities {
    fn default() -> Self {
        Self {
            name: "default limits".into(),
            backend: "none".into(),
            driver: String::new(),
            device_type: "other".into(),
            shader_f16: false,
            subgroups: false,
            subgroup_size: [1, 128],
            timestamps: false,
            max_binding_bytes: 128 << 20,
            max_buffer_bytes: 256 << 20,
            storage_alignment: 256,
            uniform_alignment: 256,
            max_storage_buffers: 8,
            max_workgroup_bytes: 16 << 10,
            max_invocations: 256,
            max_workgroups: 65_535,
            max_loop_iterations: u32::MAX,
            matrix_units: Vec::new(),
        }
    }
}
