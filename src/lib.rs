//! Attention for every GPU, on wgpu.
#[cfg(feature = "bench")]
pub mod bench;
pub mod device;
pub mod engine;
pub mod error;
pub mod feature;
pub mod kernel;
pub mod plan;
pub mod problem;
pub mod reference;
pub mod tensor;
#[cfg(feature = "verify")]
pub mod verify;

pub use engine::{Bound, BufferView, Engine, Table, Tensors};
pub use error::{Error, Rejection, Result};
pub use feature::align::Align;
pub use feature::mask::Window;
pub use feature::score::standard_slopes;
pub use plan::{Capabilities, Path, Plan, Policy};
pub use problem::{Attention, Operand, Problem, WeightsAt};
pub use tensor::{Broadcast, DType, Layout, Scalar, Shape, Strides};
pub use wgpu;
