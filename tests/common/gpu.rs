//! The adapter that tests run on, and how a test without one says so.

use super::skip::{skipped, unsupported};
use heedful::device::Readback;
use heedful::{Engine, wgpu};

/// An engine on the best adapter. Without one the test says why it is skipped, and fails when
/// `REQUIRE_GPU=1`.
pub fn engine(test: &str) -> Option<Engine> {
    Engine::new_blocking().map_err(|error| without_adapter(test, error)).ok()
}

/// The best adapter itself, likewise.
pub fn adapter(test: &str) -> Option<wgpu::Adapter> {
    let adapters = pollster::block_on(Engine::adapters());
    let first = adapters.into_iter().next();
    if first.is_none() {
        without_adapter(test, "no adapter");
    }
    first
}

fn without_adapter(test: &str, why: impl std::fmt::Display) {
    let required = std::env::var("REQUIRE_GPU").is_ok_and(|value| value == "1");
    assert!(!required, "{test}: REQUIRE_GPU=1 and {why}");
    skipped(test, why);
}

/// An engine on a device of the best adapter that was opened with the given limits, as an application would.
pub fn engine_with(test: &str, required_limits: wgpu::Limits) -> Option<Engine> {
    engine(test)?;
    let adapters = pollster::block_on(Engine::adapters());
    let adapter = adapters.first().expect("the engine's adapter");
    let descriptor = wgpu::DeviceDescriptor { required_limits, ..Default::default() };
    let device = pollster::block_on(adapter.request_device(&descriptor));
    let (device, queue) = device.expect("a device with these limits");
    Some(Engine::from_wgpu(device, queue))
}

/// An engine whose device has matrix units that WGSL can name. On an adapter without them the test counts as
/// unsupported, and fails when `REQUIRE_MATRIX=1`.
#[allow(unsafe_code, reason = "the feature under test is experimental in wgpu")]
pub fn matrix_engine(test: &str) -> Option<Engine> {
    let plain = engine(test)?;
    let adapter = adapter(test)?;
    // SAFETY: what wgpu has not proved about the feature is what these tests look at.
    let engine = pollster::block_on(unsafe { Engine::with_experimental_adapter(&adapter) });
    let engine = engine.expect("a device with the adapter's features");
    if engine.capabilities().matrix_edge().is_some() {
        return Some(engine);
    }
    let name = &plain.capabilities().name;
    let required = std::env::var("REQUIRE_MATRIX").is_ok_and(|value| value == "1");
    assert!(!required, "{test}: REQUIRE_MATRIX=1 and {name} has no matrix units");
    unsupported(test, format!("{name} has no matrix units"));
    None
}

/// Runs a one-invocation shader with a uniform at binding 0 and an output at binding 1.
pub fn echo(engine: &Engine, uniform: &[u8], shader: &str) -> Vec<u8> {
    let device = engine.device();
    let bytes = uniform.len().next_multiple_of(16) as u64;
    let buffer = |usage| {
        device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: bytes,
            usage,
            mapped_at_creation: false,
        })
    };
    let input = buffer(wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST);
    let output = buffer(wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC);
    engine.queue().write_buffer(&input, 0, uniform);
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: None,
        source: wgpu::ShaderSource::Wgsl(shader.into()),
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: None,
        module: &module,
        entry_point: Some("main"),
        compilation_options: Default::default(),
        cache: None,
    });
    let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &pipeline.get_bind_group_layout(0),
        entries: &[
            wgpu::BindGroupEntry { binding: 0, resource: input.as_entire_binding() },
            wgpu::BindGroupEntry { binding: 1, resource: output.as_entire_binding() },
        ],
    });
    let mut encoder = device.create_command_encoder(&Default::default());
    {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(1, 1, 1);
    }
    let readback = Readback::record(device, &mut encoder, &output, 0, bytes).expect("a readback");
    engine.queue().submit([encoder.finish()]);
    readback.read_blocking().expect("the echo")
}
