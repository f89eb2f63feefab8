//! What `heedful bench` is made of: workloads as data, and measurement.

mod measure;
mod workload;

pub use measure::{Clock, Measurement, measure, measure_host, measure_matmul};
pub use workload::{Suite, Workload};
