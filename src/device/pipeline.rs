//! Pipelines: composed WGSL compiled once per kernel variant and device.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::scoped;
use crate::error::{Error, Result};
use crate::kernel::{Access, Binding, KernelSpec, LineMap, compose};

/// A compiled kernel variant and the layout its bind groups need.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) pipeline: wgpu::ComputePipeline,
    pub(crate) layout: wgpu::BindGroupLayout,
}

/// The variants compiled so far on one device.
#[derive(Debug, Default)]
pub(crate) struct PipelineCache(Mutex<HashMap<KernelSpec, Arc<Pipeline>>>);

impl PipelineCache {
    /// The pipeline of `spec`, compiled on first use.
    pub(crate) fn get(&self, device: &wgpu::Device, spec: &KernelSpec) -> Result<Arc<Pipeline>> {
        // A poisoned lock only means that another thread panicked between two complete entries.
        let find = || self.0.lock().unwrap_or_else(PoisonError::into_inner).get(spec).cloned();
        if let Some(pipeline) = find() {
            return Ok(pipeline);
        }
        let pipeline = Arc::new(compile(device, spec)?);
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(cache.entry(spec.clone()).or_insert(pipeline).clone())
    }

    /// Variants compiled so far.
    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

fn compile(device: &wgpu::Device, spec: &KernelSpec) -> Result<Pipeline> {
    let label = spec.to_string();
    let composed = compose(spec);
    let entries: Vec<_> = spec
        .bindings()
        .iter()
        .map(|bound| wgpu::BindGroupLayoutEntry {
            binding: bound.binding.number(),
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: match (bound.binding, bound.access) {
                    (Binding::Params, _) => wgpu::BufferBindingType::Uniform,
                    (_, access) => {
                        wgpu::BufferBindingType::Storage { read_only: access == Access::Read }
                    }
                },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        })
        .collect();
    let build = || {
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(&label),
            source: wgpu::ShaderSource::Wgsl(composed.text.as_str().into()),
        });
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some(&label),
            entries: &entries,
        });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(&label),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&label),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                // Kernels write workgroup memory before they read it. Filling it costs compile time
                // (14 s for 8 KiB on Mesa 22.3's GL) and a serial loop on Metal.
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: None,
        });
        Pipeline { pipeline, layout }
    };
    scoped(device, &format!("compiling {label}"), 0, build)
        .map_err(|error| located(error, &label, &composed.lines))
}

/// Rewrites `wgsl:LINE:` in a compiler message to the shader file a person edits.
fn located(error: Error, label: &str, lines: &LineMap) -> Error {
    if !error.is_internal() {
        return error;
    }
    let text = error.to_string();
    let line = text.split("wgsl:").nth(1).and_then(|rest| rest.split(':').next()?.parse().ok());
    let Some(line) = line else { return error };
    let (path, line) = lines.locate(line);
    Error::internal(format!("compiling {label} at {path}:{line}"), text)
}
