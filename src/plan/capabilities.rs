//! What a device can do, as plain data.

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
    /// Iterations of all loops together after which the driver ends an invocation's loops, whatever their condition says.
    pub max_loop_iterations: u32,
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
        }
    }
}
