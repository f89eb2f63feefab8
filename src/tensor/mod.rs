//! Shapes, element types and strides: what a tensor is before anything is done with it.

mod dtype;
mod layout;
mod quantised;
mod scalar;
mod shape;
mod small_float;
mod storage;

pub use dtype::DType;
pub use layout::{Broadcast, Layout, Strides};
pub(crate) use quantised::BLOCK;
pub use scalar::Scalar;
pub use shape::Shape;
pub(crate) use shape::product;
pub(crate) use storage::Scales;
pub use storage::Storage;
