//! Backward in one pass: gradients of k and v, keys in registers.

use super::bindings::Binding;
use super::element::Element;
use super::fused_backward_rows::{bindings, glue, pair_commons, spec};
use super::fused_forward::invocations;
use super::generate::own::{Own, own};
use super::kernels::Kernel;
use super::spec::KernelSpec;
use super::tile::Tile;
use super::twin::{Family, Twin, Visits, kernel_file};
use crate::feature::Parameter;
use crate::problem::Problem;

/// Where the gradient of v starts, modulo 2³².
pub(crate) const D_V_BASE: Parameter = Parameter::u32("d_v_base");

pub(super) const TWIN: Twin = Twin {
    family: Family::Scores,
    visits: Visits::Tiles,
    backward: true,
    commons: pair_commons,
    bindings,
    glue,
    generated: |spec| Some(("generated/own", own(&spec.row_tile()?, spec, Own::Keys))),
    invocations,
    grid: |spec, work| {
        let pairs = work.pairs() / work.group.max(1);
        [work.keys.div_ceil(spec.group_rows()), pairs, 1]
    },
    parameters: &[D_V_BASE],
    ..kernel_file!("fused_backward_keys")
};

impl KernelSpec {
    /// Backward in one pass: the gradients of k and v, each where it is wanted. In registers or on tiles.
    pub(crate) fn fused_backward_keys(
        problem: &Problem,
        read: [Element; 4],
        [d_k, d_v]: [Option<Element>; 2],
        tile: Tile,
    ) -> Self {
        let kernel = match tile {
            Tile::Block(_) => Kernel::FusedBackwardTileKeys,
            _ => Kernel::FusedBackwardKeys,
        };
        let mut spec = spec(kernel, problem, read, tile);
        spec.elements.extend(d_k.map(|d| (Binding::O, d)));
        spec.elements.extend(d_v.map(|d| (Binding::DV, d)));
        spec
    }
}
