//! From a kernel, its work and what it binds to a dispatch: the one place that makes bind groups.

use std::fmt;
use std::sync::Arc;

use crate::device::{self, Pipeline};
use crate::engine::Engine;
use crate::engine::apart::shared_for;
use crate::engine::range::BoundRange;
use crate::error::{Error, Result};
use crate::kernel::{Binding, KernelSpec, Params, Work};
use crate::plan::Capabilities;
use crate::problem::Operand;

/// Copies of q and k in f32, `[batch, heads, seq, dim_qk]`.
pub(crate) type Prepared = Vec<(Operand, wgpu::Buffer)>;

/// A dispatch before its parameter block has a place in the uniform buffer.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) kernel: KernelSpec,
    pub(crate) work: Work,
    pub(crate) params: Params,
    /// All that it binds but the parameter block.
    pub(crate) ranges: Vec<(Binding, BoundRange)>,
    /// Which of the ranges are those of a tensor of the caller's.
    pub(crate) views: Vec<(Binding, Operand)>,
}

/// A draft whose kernel is the variant for its ranges, compiled.
pub(crate) struct Compiled {
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) draft: Draft,
}

/// One dispatch: pipeline, resources, grid.
#[derive(Debug)]
pub(crate) struct Dispatch {
    pub(super) pipeline: Arc<Pipeline>,
    group: wgpu::BindGroup,
    grid: [u32; 3],
    pub(super) kernel: KernelSpec,
    params: BoundRange,
    pub(super) ranges: Vec<(Binding, BoundRange)>,
    /// Which of the ranges are those of a tensor of the caller's.
    pub(super) views: Vec<(Binding, Operand)>,
}

impl Dispatch {
    pub(crate) fn record(&self, pass: &mut wgpu::ComputePass<'_>) {
        let [x, y, z] = self.grid;
        pass.set_pipeline(&self.pipeline.pipeline);
        pass.set_bind_group(0, &self.group, &[]);
        pass.dispatch_workgroups(x, y, z);
    }

    /// The same with other ranges, and the variant for them.
    pub(super) fn moved(
        &self,
        device: &wgpu::Device,
        kernel: KernelSpec,
        pipeline: Arc<Pipeline>,
        ranges: Vec<(Binding, BoundRange)>,
    ) -> Self {
        let (params, views) = (self.params.clone(), self.views.clone());
        let group = bind_group(device, &pipeline, &params, &ranges);
        Self { pipeline, group, grid: self.grid, kernel, params, ranges, views }
    }
}

/// What is dispatched, over how many workgroups, and the bytes that it binds of each buffer.
impl fmt::Display for Dispatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [x, y, z] = self.grid;
        write!(f, "{} over {x}x{y}x{z}", self.kernel)?;
        for (binding, range) in &self.ranges {
            write!(f, ", {} {}..{}", binding.name(), range.offset, range.offset + range.size)?;
        }
        Ok(())
    }
}

/// Dispatches as text, a line each.
pub(crate) fn show(dispatches: &[Dispatch], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    dispatches.iter().try_for_each(|dispatch| writeln!(f, "{dispatch}"))
}

impl Draft {
    /// A draft without tensors that could be bound elsewhere.
    pub(crate) fn new(
        kernel: KernelSpec,
        work: Work,
        params: Params,
        ranges: Vec<(Binding, BoundRange)>,
    ) -> Self {
        Self { kernel, work, params, ranges, views: Vec::new() }
    }

    /// Checks it against the device, and compiles the variant for its ranges unless that is compiled.
    pub(crate) fn compiled(self, engine: &Engine) -> Result<Compiled> {
        let caps = &engine.capabilities;
        check_limits(&self, caps)?;
        let kernel = shared_for(self.kernel, &self.ranges, caps)?;
        let pipeline = engine.pipelines.get(&engine.device, &kernel)?;
        Ok(Compiled { pipeline, draft: Draft { kernel, ..self } })
    }
}

/// Compiles and binds dispatches.
pub(crate) fn bind(
    engine: &Engine,
    drafts: impl IntoIterator<Item = Draft>,
) -> Result<Vec<Dispatch>> {
    let compiled = drafts.into_iter().map(|draft| draft.compiled(engine));
    bind_compiled(&engine.device, compiled.collect::<Result<_>>()?)
}

/// Writes all parameter blocks into one uniform buffer and makes the bind groups.
pub(crate) fn bind_compiled(
    device: &wgpu::Device,
    compiled: Vec<Compiled>,
) -> Result<Vec<Dispatch>> {
    if compiled.is_empty() {
        return Ok(Vec::new());
    }
    let block = size_of::<Params>();
    let alignment = device.limits().min_uniform_buffer_offset_alignment as usize;
    let step = block.next_multiple_of(alignment);
    let mut bytes = vec![0_u8; (compiled.len() - 1) * step + block.next_multiple_of(16)];
    for (i, Compiled { draft, .. }) in compiled.iter().enumerate() {
        bytes[i * step..][..block].copy_from_slice(bytemuck::bytes_of(&draft.params));
    }
    let uniform = device::upload(device, "parameters", &bytes, wgpu::BufferUsages::UNIFORM)?;
    device::scoped(device, "binding kernels", 0, || {
        let bind = |(i, Compiled { pipeline, draft }): (usize, Compiled)| {
            let params = BoundRange {
                buffer: uniform.clone(),
                offset: (i * step) as u64,
                size: block.next_multiple_of(16) as u64,
            };
            let Draft { kernel, work, ranges, views, .. } = draft;
            let (group, grid) =
                (bind_group(device, &pipeline, &params, &ranges), kernel.grid(&work));
            Dispatch { pipeline, group, grid, kernel, params, ranges, views }
        };
        compiled.into_iter().enumerate().map(bind).collect()
    })
}

fn bind_group(
    device: &wgpu::Device,
    pipeline: &Pipeline,
    params: &BoundRange,
    ranges: &[(Binding, BoundRange)],
) -> wgpu::BindGroup {
    fn entry(binding: Binding, range: &BoundRange) -> wgpu::BindGroupEntry<'_> {
        wgpu::BindGroupEntry {
            binding: binding.number(),
            resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer: &range.buffer,
                offset: range.offset,
                size: wgpu::BufferSize::new(range.size),
            }),
        }
    }
    let mut entries = vec![entry(Binding::Params, params)];
    entries.extend(ranges.iter().map(|(binding, range)| entry(*binding, range)));
    device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some("kernel"),
        layout: &pipeline.layout,
        entries: &entries,
    })
}

/// Refuses what only a plan for another device asks of this one.
fn check_limits(draft: &Draft, caps: &Capabilities) -> Result<()> {
    let Draft { kernel: spec, work, ranges, .. } = draft;
    let grid = spec.grid(work);
    let refuse = |found: String| Err(Error::invalid("plan", found, "one for this device"));
    for (binding, range) in ranges {
        let name = binding.name();
        if range.size > caps.max_binding_bytes {
            let most = caps.max_binding_bytes;
            return refuse(format!(
                "{spec} with {} B of {name}, which may have {most}",
                range.size
            ));
        }
        if !range.offset.is_multiple_of(caps.storage_alignment) {
            let step = caps.storage_alignment;
            return refuse(format!(
                "{spec} with {name} at {}, no multiple of {step}",
                range.offset
            ));
        }
    }
    if grid.iter().any(|n| *n > caps.max_workgroups) {
        return refuse(format!("{spec} with {grid:?} workgroups, at most {}", caps.max_workgroups));
    }
    Ok(())
}
