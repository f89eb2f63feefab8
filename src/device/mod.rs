//! The only place that makes wgpu objects: adapters, devices, pipelines, buffers, readback.

mod context;
mod foreign;
mod memory;
mod pipeline;
mod readback;
mod scope;

pub(crate) use context::{
    adapters, capabilities, matrix_units, no_adapter, request, request_experimental,
};
pub(crate) use foreign::{check_sources, named, owns_queue};
pub(crate) use memory::{create_buffer, upload};
pub(crate) use pipeline::{Pipeline, PipelineCache};
pub use readback::Readback;
pub(crate) use readback::Wait;
#[cfg(feature = "bench")]
pub(crate) use readback::finished;
pub(crate) use scope::{scoped, settled};
