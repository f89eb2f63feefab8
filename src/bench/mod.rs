//! What `heedful bench` is made of: workloads as data, measurement, and the limits of the device.

mod measure;
mod roofline;
pub mod tune;
mod workload;

pub use measure::{
    Buffers, Clock, Measurement, ROTATED_BYTES, measure, measure_backward_host, measure_host,
    measure_matmul,
};
pub use roofline::{Limit, MATRIX_FORMS, Roofline, matrix_text};
pub use workload::Workload;
