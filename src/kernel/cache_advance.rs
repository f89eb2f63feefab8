//! Counts the new rows.

use super::bindings::Access;
use super::kernels::Kernel;
use super::spec::KernelSpec;
use super::twin::{Family, Twin, kernel_file};

pub(super) const TWIN: Twin = Twin {
    family: Family::Alone,
    tables: Some(Access::ReadWrite),
    grid: |_, work| [work.batch.div_ceil(64), 1, 1],
    ..kernel_file!("cache_advance")
};

impl KernelSpec {
    /// Lengths after new rows were written.
    pub fn cache_advance() -> Self {
        Self::empty(Kernel::CacheAdvance)
    }
}
