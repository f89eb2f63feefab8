//! Where attention runs: a wgpu device with its pipelines and scratch.

mod blocks;
mod bound;
mod encode;
mod engine;
mod host;
mod matmul;
mod range;
mod self_test;
mod tables;
mod tensors;

pub use blocks::BlockBuilder;
pub use bound::Bound;
pub use engine::Engine;
pub use matmul::Matmul;
pub(crate) use tables::HostTables;
pub use tensors::{BufferView, Table, Tensors};
