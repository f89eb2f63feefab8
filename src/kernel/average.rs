//! The mean of weights over heads.

use super::bindings::Binding;
use super::element::{Element, Width};
use super::kernels::Kernel;
use super::spec::KernelSpec;
use super::twin::{Family, Twin, kernel_file, spread};

pub(super) const TWIN: Twin = Twin {
    family: Family::Alone,
    grid: |_, work| {
        let [x, y] = spread(work.columns.div_ceil(64).into());
        [x, y, work.batch]
    },
    ..kernel_file!("average")
};

impl KernelSpec {
    /// The mean of f32 weights over heads.
    pub fn average() -> Self {
        let one = Element { width: Width::Single, ..Element::F32X4 };
        let elements = vec![(Binding::Q, one), (Binding::O, one)];
        Self { elements, ..Self::empty(Kernel::Average) }
    }
}
