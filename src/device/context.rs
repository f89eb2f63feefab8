//! Adapters and devices, and what they can do.

use crate::error::{Error, Rejection, Result};
use crate::plan::Capabilities;

/// Every adapter of every compiled backend, in the order they are preferred: discrete, integrated,
/// virtual, other, software; Vulkan, Metal and DX12 before GL.
///
/// Honours wgpu's environment variables (`WGPU_BACKEND`, `WGPU_ADAPTER_NAME` …).
pub async fn adapters() -> Vec<wgpu::Adapter> {
    if wgpu::Instance::enabled_backend_features().is_empty() {
        return Vec::new();
    }
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle_from_env();
    // Indirect-call validation costs a dispatch per call and this library makes no indirect calls.
    descriptor.flags.remove(wgpu::InstanceFlags::VALIDATION_INDIRECT_CALL);
    let backends = descriptor.backends;
    let instance = wgpu::Instance::new(descriptor);
    let wanted = std::env::var("WGPU_ADAPTER_NAME").unwrap_or_default().to_lowercase();
    let mut adapters = instance.enumerate_adapters(backends).await;
    adapters.retain(|adapter| {
        let info = adapter.get_info();
        let compute = wgpu::DownlevelFlags::COMPUTE_SHADERS;
        info.name.to_lowercase().contains(&wanted)
            && adapter.get_downlevel_capabilities().flags.contains(compute)
    });
    adapters.sort_by_key(|adapter| {
        let info = adapter.get_info();
        let kind = match info.device_type {
            wgpu::DeviceType::DiscreteGpu => 0,
            wgpu::DeviceType::IntegratedGpu => 1,
            wgpu::DeviceType::VirtualGpu => 2,
            wgpu::DeviceType::Other => 3,
            wgpu::DeviceType::Cpu => 4,
        };
        (kind, info.backend == wgpu::Backend::Gl)
    });
    adapters
}

/// Opens a device on an adapter with its full limits and the optional features that kernels use.
///
/// # Errors
/// Internal, when the driver refuses the device.
pub async fn request(adapter: &wgpu::Adapter) -> Result<(wgpu::Device, wgpu::Queue)> {
    let used = wgpu::Features::SHADER_F16
        | wgpu::Features::SUBGROUP
        | wgpu::Features::TIMESTAMP_QUERY
        | wgpu::Features::PIPELINE_CACHE;
    let descriptor = wgpu::DeviceDescriptor {
        label: Some("heedful"),
        required_features: adapter.features() & used,
        required_limits: adapter.limits(),
        // Blocks of megabytes rather than hundreds of them: buffers here are few and pooled.
        memory_hints: wgpu::MemoryHints::MemoryUsage,
        ..Default::default()
    };
    adapter
        .request_device(&descriptor)
        .await
        .map_err(|e| Error::internal(format!("opening {}", adapter.get_info().name), e.to_string()))
}

/// What a device can do; for a borrowed device that is what its application asked for.
pub fn capabilities(device: &wgpu::Device) -> Capabilities {
    let (limits, features) = (device.limits(), device.features());
    let info = device.adapter_info();
    Capabilities {
        name: info.name.clone(),
        backend: info.backend.to_string(),
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        device_type: format!("{:?}", info.device_type).to_lowercase(),
        shader_f16: features.contains(wgpu::Features::SHADER_F16),
        subgroups: features.contains(wgpu::Features::SUBGROUP),
        subgroup_size: [info.subgroup_min_size, info.subgroup_max_size],
        timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
        max_binding_bytes: limits.max_storage_buffer_binding_size,
        max_buffer_bytes: limits.max_buffer_size,
        storage_alignment: limits.min_storage_buffer_offset_alignment.into(),
        uniform_alignment: limits.min_uniform_buffer_offset_alignment.into(),
        max_storage_buffers: limits.max_storage_buffers_per_shader_stage,
        max_workgroup_bytes: limits.max_compute_workgroup_storage_size,
        max_invocations: limits
            .max_compute_invocations_per_workgroup
            .min(limits.max_compute_workgroup_size_x),
        max_workgroups: limits.max_compute_workgroups_per_dimension,
        max_loop_iterations: max_loop_iterations(&info),
    }
}

/// Mesa's llvmpipe ends loops after 65 535 iterations, without a word: 22.3.6 does, by Vulkan and by OpenGL, 26.2.6 does
/// not. Those between were not tried and count as the old one.
fn max_loop_iterations(info: &wgpu::AdapterInfo) -> u32 {
    let driver = format!("{} {}", info.driver, info.driver_info);
    let after = driver.split("Mesa ").nth(1).unwrap_or_default();
    let version: String = after.chars().take_while(char::is_ascii_digit).collect();
    let old = version.parse().is_ok_and(|major: u32| major < 26);
    if info.name.starts_with("llvmpipe") && old { 65_535 } else { u32::MAX }
}

/// The error for a machine without any adapter, with the line that mends it.
pub(crate) fn no_adapter() -> Error {
    let reason = "no adapter found; a software one comes with Mesa: apt install \
                  mesa-vulkan-drivers, dnf install mesa-vulkan-drivers, pacman -S vulkan-swrast \
                  or apk add mesa-vulkan-swrast";
    Error::unsupported(
        "attention on a GPU",
        vec![Rejection { candidate: "any adapter".into(), reason: reason.into() }],
    )
}
