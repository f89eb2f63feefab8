//! Pipelines: composed WGSL compiled once per kernel variant and device.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::scope::{now, observed, unless_right, unsettled};
use super::{scoped, settled};
use crate::error::{Error, Result};
use crate::kernel::{Access, Compiler, Composed, Kernel, KernelSpec, compose_for};

/// Native wgpu compiles with naga; in a browser the text goes to the browser.
const COMPILER: Compiler =
    if cfg!(target_arch = "wasm32") { Compiler::Browser } else { Compiler::Naga };

/// A compiled kernel variant and the layout its bind groups need.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) pipeline: wgpu::ComputePipeline,
    pub(crate) layout: wgpu::BindGroupLayout,
}

/// A change to a kernel's text.
type Edit = fn(&str) -> String;

/// The variants compiled so far on one device.
#[derive(Debug, Default)]
pub(crate) struct PipelineCache {
    compiled: Arc<Mutex<HashMap<KernelSpec, Arc<Pipeline>>>>,
    planted: Mutex<HashMap<Kernel, Edit>>,
}

impl PipelineCache {
    /// The pipeline of `spec`, compiled on first use. In a browser what is wrong with it is told to
    /// [`settled`](super::settled).
    pub(crate) fn get(&self, device: &wgpu::Device, spec: &KernelSpec) -> Result<Arc<Pipeline>> {
        if let Some(pipeline) = self.find(spec) {
            return Ok(pipeline);
        }
        let composed = self.compose(spec);
        let (module, made) = module(device, spec, &composed);
        if let Err(error) = made {
            // Messages are there at once wherever errors are.
            return Err(now(explained(spec, &composed, &module, error.clone())).unwrap_or(error));
        }
        let kept = self.keep(spec, pipeline(device, spec, &module)?);
        if unsettled() {
            let (compiled, spec) = (Arc::clone(&self.compiled), spec.clone());
            unless_right(Box::new(move || {
                compiled.lock().unwrap_or_else(PoisonError::into_inner).remove(&spec);
            }));
        }
        Ok(kept)
    }

    /// Compiles `spec` unless it is compiled, and knows what is wrong with it, in a browser too.
    pub(crate) async fn compiled(&self, device: &wgpu::Device, spec: &KernelSpec) -> Result<()> {
        if self.find(spec).is_some() {
            return Ok(());
        }
        let composed = self.compose(spec);
        let (module, made) = module(device, spec, &composed);
        if let Err(error) = settled(|| made).await {
            return Err(explained(spec, &composed, &module, error).await);
        }
        let pipeline = settled(|| pipeline(device, spec, &module)).await?;
        self.keep(spec, pipeline);
        Ok(())
    }

    // A poisoned lock only means that another thread panicked between two complete entries.
    fn find(&self, spec: &KernelSpec) -> Option<Arc<Pipeline>> {
        self.compiled.lock().unwrap_or_else(PoisonError::into_inner).get(spec).cloned()
    }

    fn keep(&self, spec: &KernelSpec, pipeline: Pipeline) -> Arc<Pipeline> {
        let mut cache = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        cache.entry(spec.clone()).or_insert(Arc::new(pipeline)).clone()
    }

    /// The text of a kernel as this device gets it.
    fn compose(&self, spec: &KernelSpec) -> Composed {
        let mut composed = compose_for(spec, COMPILER);
        let planted = self.planted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(edit) = planted.get(&spec.kernel) {
            composed.text = edit(&composed.text);
        }
        composed
    }

    /// Whether `spec` is compiled.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn holds(&self, spec: &KernelSpec) -> bool {
        self.find(spec).is_some()
    }

    /// Variants compiled so far.
    pub(crate) fn len(&self) -> usize {
        self.compiled.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Edits the text of a kernel before it is compiled, for tests of the self-test.
    pub(crate) fn plant(&self, kernel: Kernel, edit: Edit) {
        self.planted.lock().unwrap_or_else(PoisonError::into_inner).insert(kernel, edit);
    }
}

fn pipeline(
    device: &wgpu::Device,
    spec: &KernelSpec,
    module: &wgpu::ShaderModule,
) -> Result<Pipeline> {
    let label = spec.to_string();
    let entries: Vec<_> = spec
        .bindings()
        .iter()
        .map(|bound| wgpu::BindGroupLayoutEntry {
            binding: bound.binding.number(),
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: match bound.access {
                    Access::Uniform => wgpu::BufferBindingType::Uniform,
                    access => {
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
            module,
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
}

#[allow(
    unsafe_code,
    reason = "a spec without checks comes from Checks::off, whose caller took responsibility"
)]
fn trusted(
    device: &wgpu::Device,
    descriptor: wgpu::ShaderModuleDescriptor<'_>,
) -> wgpu::ShaderModule {
    let checks = wgpu::ShaderRuntimeChecks::unchecked();
    // SAFETY: the kernels index within what `bind` checked; for tables and functions of the caller's own
    // the caller of `Checks::off` vouched.
    unsafe { device.create_shader_module_trusted(descriptor, checks) }
}

/// The module, and what is known to be wrong with it.
fn module(
    device: &wgpu::Device,
    spec: &KernelSpec,
    composed: &Composed,
) -> (wgpu::ShaderModule, Result<()>) {
    let label = spec.to_string();
    observed(device, &format!("compiling {label}"), 0, || {
        let descriptor = wgpu::ShaderModuleDescriptor {
            label: Some(&label),
            source: wgpu::ShaderSource::Wgsl(composed.text.as_str().into()),
        };
        if spec.build.unchecked {
            trusted(device, descriptor)
        } else {
            device.create_shader_module(descriptor)
        }
    })
}

/// What is wrong with a module: the error names the shader file and line that a person edits; in a function of
/// the caller's own, it is the caller's argument that is invalid.
async fn explained(
    spec: &KernelSpec,
    composed: &Composed,
    module: &wgpu::ShaderModule,
    error: Error,
) -> Error {
    if !error.is_internal() {
        return error;
    }
    let messages = module.get_compilation_info().await.messages;
    let first = messages.iter().find(|m| m.message_type == wgpu::CompilationMessageType::Error);
    let Some(location) = first.and_then(|message| message.location) else { return error };
    let (path, line) = composed.lines.locate(location.line_number);
    if path.starts_with("custom/") {
        let found = first.map_or_else(String::new, |message| message.message.clone());
        return Error::invalid(format!("{path}:{line}"), found, "WGSL that compiles");
    }
    let message = error.message().unwrap_or_default();
    Error::internal(format!("compiling {spec} at {path}:{line}"), message)
}
