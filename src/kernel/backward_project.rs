//! Backward: gradients of a linear layer's input.

use super::bindings::Binding;
use super::block_tile::TILE;
use super::element::{Element, Width};
use super::generate::function;
use super::generate::matrix_square::PLAIN_BYTES;
use super::kernels::Kernel;
use super::spec::KernelSpec;
use super::twin::{Family, Twin, common, kernel_file};

pub(super) const TWIN: Twin = Twin {
    family: Family::Alone,
    square: true,
    commons: |_| vec![common!("tile")],
    glue: |out, spec| {
        let wide = |x: &(Binding, Element)| x.0 == Binding::O && x.1.width == Width::Vec4;
        let body = match spec.elements.iter().any(wide) {
            true => "return o[i >> 2u];",
            false => {
                "var v = vec4<f32>(0.0); for (var c = 0u; c < n; c += 1u) { v[c] = o[i + c]; } return v;"
            }
        };
        function(out, "o_load4(i: u32, n: u32) -> vec4<f32>", body);
    },
    workgroup_bytes: |_| PLAIN_BYTES,
    grid: |_, work| [work.columns.div_ceil(TILE), work.rows.div_ceil(TILE), work.batch],
    ..kernel_file!("backward_project")
};

impl KernelSpec {
    /// Backward: the gradient of x from that of y = x Wᵀ, all f32.
    pub fn backward_project([d, w, o]: [Element; 3]) -> Self {
        Self {
            elements: vec![(Binding::Q, d), (Binding::Projection, w), (Binding::O, o)],
            ..Self::empty(Kernel::BackwardProject)
        }
    }
}
