//! What the device can do, measured on the spot by small kernels: the limits that results are held against.

#[cfg(not(target_arch = "wasm32"))]
mod matrix;

#[cfg(not(target_arch = "wasm32"))]
pub use matrix::{MATRIX_FORMS, matrix_text};

use std::time::Duration;

use web_time::Instant;

use crate::bench::measure::{Clock, Encode, Measurement, repeat};
use crate::device::{Wait, create_buffer, finished, scoped, upload};
use crate::engine::Engine;
use crate::error::Result;
use crate::plan::Path;
use crate::tensor::DType;

/// Time spent on each rate.
const BUDGET: Duration = Duration::from_millis(100);
/// Multiply-adds of one invocation of `fma.wgsl`: 64 times 8 rounds of 5 chains of pairs.
const FMA_OF_INVOCATION: u64 = 64 * 8 * 5 * 2;
/// Bytes that one workgroup of `read.wgsl` and `copy.wgsl` reads.
const BYTES_OF_GROUP: u64 = 4096 * 16;
/// Most workgroups of a kernel that moves nothing.
const MOST_GROUPS: u32 = 1 << 14;
/// Dispatches that are timed together.
const DISPATCHES: u32 = 256;

/// Rates of a device, by the same clock as results.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Roofline {
    /// f32 multiply-adds, counted as two, 10⁹ a second.
    pub f32_gflops: f64,
    /// Native f16 multiply-adds, where the device has them.
    pub f16_gflops: Option<f64>,
    /// Multiply-adds of f16 with f32 sums on matrix units, where the device was opened with some.
    #[cfg_attr(feature = "serde", serde(default))]
    pub matrix_gflops: Option<f64>,
    /// Reading memory that no cache holds, 10⁹ bytes a second.
    pub read_gbps: f64,
    /// Reading 4 MiB again and again, which caches may hold.
    pub cached_gbps: f64,
    /// Bytes read and bytes written by a copy, together.
    pub copy_gbps: f64,
    /// From one dispatch to the next that depends on it, microseconds.
    pub dispatch_us: f64,
    /// An empty submission, from the call to the end of waiting for it, microseconds of the host's clock.
    pub submit_us: f64,
    /// Where times come from.
    pub clock: Clock,
}

/// What keeps a call from being faster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum Limit {
    /// Multiply-adds.
    Compute,
    /// Reading inputs and writing outputs.
    Memory,
    /// Starting dispatches.
    Dispatch,
}

impl Roofline {
    /// Measures the device.
    ///
    /// # Errors
    /// Device lost, out of memory, internal.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn measure(engine: &Engine) -> Result<Self> {
        pollster::block_on(Self::measure_in(engine, Wait::Blocking))
    }

    /// `measure` without blocking the thread.
    ///
    /// # Errors
    /// As `measure`.
    pub async fn measure_async(engine: &Engine) -> Result<Self> {
        Self::measure_in(engine, Wait::Awaiting).await
    }

    async fn measure_in(engine: &Engine, wait: Wait) -> Result<Self> {
        let f16 = engine.capabilities().shader_f16;
        let (f32_gflops, clock) = fma(engine, "f32", wait).await?;
        let (large, small) = (memory_bytes(engine), 4 << 20);
        let (read, copy) = (
            include_str!("../../shaders/roofline/read.wgsl"),
            include_str!("../../shaders/roofline/copy.wgsl"),
        );
        Ok(Self {
            f32_gflops,
            f16_gflops: if f16 { Some(fma(engine, "f16", wait).await?.0) } else { None },
            matrix_gflops: matrix_gflops(engine, wait).await?,
            read_gbps: moved(engine, "read", read, [large, 1], wait).await?,
            cached_gbps: moved(engine, "read", read, [small, 1], wait).await?,
            copy_gbps: moved(engine, "copy", copy, [large / 2, 2], wait).await?,
            dispatch_us: dispatch(engine, wait).await?,
            submit_us: submit(engine, wait).await?,
            clock,
        })
    }

    /// What a path's multiply-adds can reach, 10⁹ a second: that of matrix units for the paths that use them.
    pub fn gflops(&self, path: Path) -> f64 {
        self.matrix_gflops.filter(|_| path.is_matrix()).unwrap_or(self.f32_gflops)
    }

    /// The least time of so much work on a path, milliseconds, and what sets it. `cached` says that inputs were
    /// read just before and may lie in a cache.
    pub fn bound(
        &self,
        path: Path,
        flops: f64,
        bytes: f64,
        dispatches: usize,
        cached: bool,
    ) -> (f64, Limit) {
        let gbps = if cached { self.cached_gbps.max(self.read_gbps) } else { self.read_gbps };
        let candidates = [
            (flops / self.gflops(path) / 1e6, Limit::Compute),
            (bytes / gbps / 1e6, Limit::Memory),
            (dispatches as f64 * self.dispatch_us / 1e3, Limit::Dispatch),
        ];
        let largest = candidates.into_iter().max_by(|a, b| a.0.total_cmp(&b.0));
        largest.unwrap_or((0.0, Limit::Compute))
    }
}

#[cfg(not(target_arch = "wasm32"))]
async fn matrix_gflops(engine: &Engine, wait: Wait) -> Result<Option<f64>> {
    Ok(matrix::matrix(engine, wait).await?.map(|(gflops, _)| gflops))
}

/// A browser has no matrix units.
#[cfg(target_arch = "wasm32")]
async fn matrix_gflops(_: &Engine, _: Wait) -> Result<Option<f64>> {
    Ok(None)
}

/// Enough that no last-level cache holds it: 256 MiB, or what one binding may hold.
fn memory_bytes(engine: &Engine) -> u64 {
    let caps = engine.capabilities();
    let groups = u64::from(caps.max_workgroups) * BYTES_OF_GROUP;
    let most = (256 << 20).min(caps.max_binding_bytes).min(caps.max_buffer_bytes).min(groups);
    most / BYTES_OF_GROUP * BYTES_OF_GROUP
}

/// A kernel of two buffers, ready to be recorded.
struct Small {
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
}

impl Small {
    fn new(
        engine: &Engine,
        name: &str,
        text: &str,
        given: &wgpu::Buffer,
        bytes: u64,
    ) -> Result<Self> {
        let device = engine.device();
        let result = create_buffer(device, name, bytes.max(16), wgpu::BufferUsages::STORAGE)?;
        scoped(device, &format!("compiling roofline/{name}"), 0, || {
            let module = unchecked(device, name, text);
            let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(name),
                layout: None,
                module: &module,
                entry_point: Some("main"),
                compilation_options: Default::default(),
                cache: None,
            });
            let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(name),
                layout: &pipeline.get_bind_group_layout(0),
                entries: &[
                    wgpu::BindGroupEntry { binding: 0, resource: given.as_entire_binding() },
                    wgpu::BindGroupEntry { binding: 1, resource: result.as_entire_binding() },
                ],
            });
            Self { pipeline, group }
        })
    }

    async fn time(
        &self,
        engine: &Engine,
        [groups, dispatches]: [u32; 2],
        wait: Wait,
    ) -> Result<Measurement> {
        let encode: &Encode<'_> = &|_, encoder, timestamps| {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: Some("roofline"),
                timestamp_writes: timestamps,
            });
            pass.set_pipeline(&self.pipeline);
            pass.set_bind_group(0, &self.group, &[]);
            for _ in 0..dispatches {
                pass.dispatch_workgroups(groups, 1, 1);
            }
        };
        repeat(engine, BUDGET, encode, wait).await
    }
}

#[allow(
    unsafe_code,
    reason = "a limit is measured without the checks that would be measured with it"
)]
fn unchecked(device: &wgpu::Device, name: &str, text: &str) -> wgpu::ShaderModule {
    let descriptor = wgpu::ShaderModuleDescriptor {
        label: Some(name),
        source: wgpu::ShaderSource::Wgsl(text.into()),
    };
    // SAFETY: the kernels of shaders/roofline index by workgroup and lane only, within buffers that are
    // made here for just so many workgroups, and their loops have fixed ends.
    unsafe {
        device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked())
    }
}

/// 10⁹ multiply-adds a second, counted as two, of the better of two ways to write them: drivers differ in
/// which becomes one instruction.
async fn fma(engine: &Engine, real: &str, wait: Wait) -> Result<(f64, Clock)> {
    let values = [0.999_f64; 4].into_iter().chain([1e-3; 4]).chain([1.0; 4]);
    let bytes = DType::F32.encode(values);
    let given = upload(engine.device(), "roofline", &bytes, wgpu::BufferUsages::STORAGE)?;
    let mut best = (0.0, Clock::Wall);
    for fused in ["fma(x, b, c)", "x * b + c"] {
        let enable = if real == "f16" { "enable f16;\n" } else { "" };
        let round = |x: &str| format!("{x} = {};\n", fused.replace('x', x));
        let rounds = ["x0", "x1", "x2", "x3", "x4"].map(round).concat().repeat(8);
        let text = include_str!("../../shaders/roofline/fma.wgsl").replace("ROUNDS", &rounds);
        let text = format!("{enable}alias real = {real};\n{text}");
        let bytes = u64::from(MOST_GROUPS) * 64 * 16;
        let kernel = Small::new(engine, "fma", &text, &given, bytes)?;
        let found = rate(engine, &kernel, 64 * FMA_OF_INVOCATION * 2, wait).await?;
        best = if found.0 > best.0 { found } else { best };
    }
    Ok(best)
}

/// 10⁹ operations a second of a kernel, given those of a workgroup: with more and more workgroups until they take two
/// milliseconds, which no clock is too coarse for.
async fn rate(engine: &Engine, kernel: &Small, of_group: u64, wait: Wait) -> Result<(f64, Clock)> {
    let mut best = (0.0, Clock::Wall);
    let mut groups = 64;
    loop {
        let time = kernel.time(engine, [groups, 1], wait).await?;
        let rate = (u64::from(groups) * of_group) as f64 / time.min_ms / 1e6;
        best = if rate > best.0 { (rate, time.clock) } else { best };
        if time.min_ms >= 2.0 || groups * 2 > MOST_GROUPS {
            return Ok(best);
        }
        groups *= 2;
    }
}

/// 10⁹ bytes a second of a kernel that reads `bytes`, each of them moved `times` in all; of the best of several
/// widths of a workgroup: drivers that run shaders on the CPU read in order only where it is narrow.
async fn moved(
    engine: &Engine,
    name: &str,
    text: &str,
    [bytes, times]: [u64; 2],
    wait: Wait,
) -> Result<f64> {
    let groups = (bytes / BYTES_OF_GROUP).max(1);
    let bytes = groups * BYTES_OF_GROUP;
    let usage = wgpu::BufferUsages::STORAGE;
    let given = create_buffer(engine.device(), "roofline", bytes, usage)?;
    let mut best = 0.0_f64;
    for lanes in [8, 64, 256] {
        let written = if times > 1 { bytes } else { groups * lanes * 16 };
        let text = text.replace("LANES", &format!("{lanes}u"));
        let kernel = Small::new(engine, name, &text, &given, written)?;
        let time = kernel.time(engine, [groups as u32, 1], wait).await?;
        best = best.max((times * bytes) as f64 / time.min_ms / 1e6);
    }
    Ok(best)
}

async fn dispatch(engine: &Engine, wait: Wait) -> Result<f64> {
    let given = create_buffer(engine.device(), "roofline", 16, wgpu::BufferUsages::STORAGE)?;
    let text = include_str!("../../shaders/roofline/nothing.wgsl");
    let kernel = Small::new(engine, "nothing", text, &given, 16)?;
    let time = kernel.time(engine, [1, DISPATCHES], wait).await?;
    Ok(time.median_ms * 1e3 / f64::from(DISPATCHES))
}

async fn submit(engine: &Engine, wait: Wait) -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..50 {
        let start = Instant::now();
        let encoder = engine.device().create_command_encoder(&Default::default());
        engine.queue().submit([encoder.finish()]);
        finished(engine.device(), engine.queue(), wait).await?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

#[cfg(test)]
mod tests {
    use super::{Limit, Roofline};
    use crate::bench::measure::Clock;
    use crate::plan::Path;

    const WITH_UNITS: Roofline = Roofline {
        f32_gflops: 100.0,
        f16_gflops: None,
        matrix_gflops: Some(800.0),
        read_gbps: 10.0,
        cached_gbps: 20.0,
        copy_gbps: 10.0,
        dispatch_us: 1.0,
        submit_us: 1.0,
        clock: Clock::Wall,
    };

    #[test]
    fn a_path_is_held_against_the_units_it_uses() {
        let bound = |roofline: &Roofline, path| roofline.bound(path, 1e9, 2e7, 1, false);
        assert_eq!(bound(&WITH_UNITS, Path::Fused), (10.0, Limit::Compute));
        // Eight times the arithmetic: memory binds.
        assert_eq!(bound(&WITH_UNITS, Path::FusedMatrix), (2.0, Limit::Memory));
        assert_eq!(WITH_UNITS.bound(Path::StagedMatrix, 8e9, 0.0, 1, true), (10.0, Limit::Compute));
        let without = Roofline { matrix_gflops: None, ..WITH_UNITS };
        assert_eq!(bound(&without, Path::FusedMatrix), (10.0, Limit::Compute));
    }

    #[test]
    fn limits_from_before_matrix_units_are_read() {
        let mut written = serde_json::to_value(WITH_UNITS).expect("JSON");
        written.as_object_mut().expect("fields").remove("matrix_gflops");
        let read: Roofline = serde_json::from_value(written).expect("limits");
        assert_eq!(read, Roofline { matrix_gflops: None, ..WITH_UNITS });
    }
}
