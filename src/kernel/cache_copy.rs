//! Copies a page of a cache.

use super::bindings::Binding;
use super::element::{Element, Width};
use super::kernels::Kernel;
use super::spec::KernelSpec;
use super::twin::{Family, Twin, kernel_file, spread};
use crate::tensor::Storage;

pub(super) const TWIN: Twin = Twin {
    family: Family::Alone,
    grid: |_, work| {
        let [x, y] = spread(work.columns.div_ceil(64).into());
        [x, y, 1]
    },
    ..kernel_file!("cache_copy")
};

impl KernelSpec {
    /// A page of words to another place in the same buffer.
    pub fn cache_copy() -> Self {
        let words = Element { storage: Storage::Int8, native_f16: false, width: Width::Vec4 };
        Self { elements: vec![(Binding::O, words)], ..Self::empty(Kernel::CacheCopy) }
    }
}
