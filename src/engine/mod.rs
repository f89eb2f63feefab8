//! Where attention runs: a wgpu device with its pipelines and scratch.

mod apart;
mod backward;
mod backward_drafts;
mod backward_host;
mod backward_plan;
mod backward_roles;
mod blocks;
mod bound;
mod compile;
mod dispatch;
mod encode;
mod engine;
mod host;
mod linear;
mod linear_backward;
mod matmul;
mod merge;
mod parameters;
mod places;
mod range;
mod rebind;
mod rows;
mod self_test;
mod stored;
mod tables;
mod tensors;
mod verdicts;

pub(crate) use apart::{Extent, check_apart};
pub use backward::{BackwardTensors, BoundBackward};
#[cfg(all(feature = "bench", not(target_arch = "wasm32")))]
pub(crate) use backward_host::UploadedBackward;
pub(crate) use backward_host::gapless;
#[cfg(feature = "verify")]
pub(crate) use backward_host::{laid_out, row_ranges};
pub use blocks::BlockBuilder;
pub use bound::Bound;
pub(crate) use bound::{Copied, Recorded, check_copies};
pub(crate) use dispatch::{Compiled, Dispatch, Draft, bind, bind_compiled, show};
pub use engine::Engine;
#[cfg(feature = "bench")]
pub(crate) use host::Uploaded;
#[cfg(feature = "verify")]
pub(crate) use host::input_bytes;
pub(crate) use linear::{Linear, Rows, average};
pub(crate) use linear_backward::{LinearBackward, columns};
#[doc(hidden)]
pub use matmul::Matmul;
pub use merge::{Merge, MergeStates};
pub(crate) use range::BoundRange;
pub use rows::PreparedRows;
pub(crate) use stored::stored;
pub(crate) use tables::HostTables;
#[cfg(feature = "verify")]
pub(crate) use tensors::offset_alignment;
pub use tensors::{BufferView, Table, Tensors};
