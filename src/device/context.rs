//! Adapters and devices, and what they can do.

use crate::error::{Error, Rejection, Result};
use crate::plan::{Capabilities, MatrixUnit};
use crate::tensor::DType;

/// [`Engine::adapters`](crate::Engine::adapters).
pub(crate) async fn adapters() -> Vec<wgpu::Adapter> {
    if wgpu::Instance::enabled_backend_features().is_empty() {
        return Vec::new();
    }
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle_from_env();
    // Indirect-call validation costs a dispatch per call and this library makes no indirect calls.
    descriptor.flags.remove(wgpu::InstanceFlags::VALIDATION_INDIRECT_CALL);
    let backends = descriptor.backends;
    let instance = wgpu::Instance::new(descriptor);
    let wanted = std::env::var("WGPU_ADAPTER_NAME").unwrap_or_default().to_ascii_lowercase();
    let mut adapters = instance.enumerate_adapters(backends).await;
    adapters.retain(|adapter| {
        let info = adapter.get_info();
        let compute = wgpu::DownlevelFlags::COMPUTE_SHADERS;
        info.name.to_ascii_lowercase().contains(&wanted)
            && adapter.get_downlevel_capabilities().flags.contains(compute)
    });
    // A browser gives one, or none.
    #[cfg(not(target_arch = "wasm32"))]
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
pub(crate) async fn request(adapter: &wgpu::Adapter) -> Result<(wgpu::Device, wgpu::Queue)> {
    open(adapter, wgpu::Features::empty(), wgpu::ExperimentalFeatures::disabled()).await
}

/// [`request`] with the features that wgpu calls experimental and kernels can use: cooperative matrices, where the
/// adapter has them.
///
/// # Safety
/// As [`wgpu::ExperimentalFeatures::enabled`]: wgpu has not proved these features to be sound.
///
/// # Errors
/// As [`request`].
#[allow(unsafe_code, reason = "this is where the caller takes responsibility")]
pub(crate) async unsafe fn request_experimental(
    adapter: &wgpu::Adapter,
) -> Result<(wgpu::Device, wgpu::Queue)> {
    // SAFETY: the caller has accepted it.
    let experimental = unsafe { wgpu::ExperimentalFeatures::enabled() };
    open(adapter, wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX, experimental).await
}

async fn open(
    adapter: &wgpu::Adapter,
    more: wgpu::Features,
    experimental_features: wgpu::ExperimentalFeatures,
) -> Result<(wgpu::Device, wgpu::Queue)> {
    let used = wgpu::Features::SHADER_F16
        | wgpu::Features::SUBGROUP
        | wgpu::Features::TIMESTAMP_QUERY
        | wgpu::Features::PIPELINE_CACHE
        | more;
    let descriptor = wgpu::DeviceDescriptor {
        label: Some("heedful"),
        required_features: adapter.features() & used,
        required_limits: adapter.limits(),
        experimental_features,
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
pub(crate) fn capabilities(device: &wgpu::Device) -> Capabilities {
    let (limits, features) = (device.limits(), device.features());
    let info = device.adapter_info();
    Capabilities {
        name: info.name.clone(),
        backend: info.backend.to_string(),
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        device_type: format!("{:?}", info.device_type).to_ascii_lowercase(),
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
        matrix_units: Vec::new(),
    }
}

/// An adapter's matrix units as planning sees them; none where the device cannot use them.
pub(crate) fn matrix_units(
    device: &wgpu::Device,
    properties: &[wgpu::CooperativeMatrixProperties],
) -> Vec<MatrixUnit> {
    let needed = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX | wgpu::Features::SHADER_F16;
    if !device.features().contains(needed) {
        return Vec::new();
    }
    let scalar = |x: wgpu::CooperativeScalarType| match x {
        wgpu::CooperativeScalarType::F32 => Some(DType::F32),
        wgpu::CooperativeScalarType::F16 => Some(DType::F16),
        wgpu::CooperativeScalarType::I32 | wgpu::CooperativeScalarType::U32 => None,
    };
    let unit = |x: &wgpu::CooperativeMatrixProperties| {
        Some(MatrixUnit {
            size: [x.m_size, x.n_size, x.k_size],
            operands: scalar(x.ab_type)?,
            sums: scalar(x.cr_type)?,
        })
    };
    properties.iter().filter_map(unit).collect()
}

/// Mesa's llvmpipe ends loops after 65 535 iterations, without a word: 22.3.6 does, by Vulkan and by OpenGL, 26.2.6
/// does not. Those between were not tried and count as the old one.
fn max_loop_iterations(info: &wgpu::AdapterInfo) -> u32 {
    let driver = format!("{} {}", info.driver, info.driver_info);
    let after = driver.split("Mesa ").nth(1).unwrap_or_default();
    let version: String = after.chars().take_while(char::is_ascii_digit).collect();
    let old = version.parse().is_ok_and(|major: u32| major < 26);
    if info.name.starts_with("llvmpipe") && old { 65_535 } else { u32::MAX }
}

/// The error for a machine without any adapter, with what mends it.
pub(crate) fn no_adapter() -> Error {
    no_adapter_on(cfg!(target_arch = "wasm32"))
}

fn no_adapter_on(browser: bool) -> Error {
    let reason = if browser {
        "no adapter found; the browser must have WebGPU, on a page that came by https or from localhost"
    } else {
        "no adapter found; a software one comes with Mesa: apt install mesa-vulkan-drivers, \
         dnf install mesa-vulkan-drivers, pacman -S vulkan-swrast or apk add mesa-vulkan-swrast"
    };
    Error::unsupported(
        "attention on a GPU",
        vec![Rejection { candidate: "any adapter".into(), reason: reason.into() }],
    )
}

#[cfg(test)]
mod tests {
    use super::no_adapter_on;

    #[test]
    fn nobody_in_a_browser_is_told_to_install_a_driver() {
        let [native, browser] = [false, true].map(|browser| no_adapter_on(browser).to_string());
        assert!(native.contains("apt install"), "{native}");
        assert!(browser.contains("WebGPU") && !browser.contains("install"), "{browser}");
    }
}
