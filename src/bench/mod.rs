//! What `heedful bench` is made of: workloads as data, measurement, and the limits of the device. In a browser, where
//! nothing may block, what awaits.

mod measure;
mod roofline;
#[cfg(not(target_arch = "wasm32"))]
pub mod tune;
mod workload;

pub use measure::{Buffers, Clock, Measurement, ROTATED_BYTES, measure_host_async};
#[cfg(not(target_arch = "wasm32"))]
pub use measure::{measure, measure_backward_host, measure_host, measure_matmul};
pub use roofline::{Limit, Roofline};
#[cfg(not(target_arch = "wasm32"))]
pub use roofline::{MATRIX_FORMS, matrix_text};
pub use workload::Workload;
