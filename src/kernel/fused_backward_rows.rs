//! Backward in one pass: gradients of q, rows in registers.

use super::backward_row::chain_glue;
use super::bindings::{Access, Binding};
use super::element::Element;
use super::fused_forward::{grid, invocations};
use super::generate::function;
use super::generate::glue::{score_glue, weight_glue, whole_glue};
use super::generate::own::{Own, own};
use super::kernels::Kernel;
use super::spec::{BlockTable, KernelSpec};
use super::tile::Tile;
use super::twin::{Common, Family, Twin, common, kernel_file};
use super::variants::EDGES;
use crate::problem::{Operand, Problem};
use crate::tensor::Storage;

pub(super) const TWIN: Twin = Twin {
    family: Family::Scores,
    backward: true,
    commons: pair_commons,
    bindings,
    glue,
    generated: |spec| Some(("generated/own", own(&spec.row_tile()?, spec, Own::Rows))),
    invocations,
    grid,
    ..kernel_file!("fused_backward_rows")
};

/// What kernels that go over pairs share.
pub(super) fn pair_commons(spec: &KernelSpec) -> Vec<Common> {
    let mut commons = vec![common!("normalizer"), common!("modify")];
    commons.extend(spec.is_each().then_some(common!("normalize_each")));
    commons.push(common!("fused_backward"));
    commons
}

/// What is kept of rows, where weights are relative to that.
pub(super) fn bindings(spec: &KernelSpec) -> Vec<(Binding, Access)> {
    // `fused_backward_keys` only reads it, but all scratch may share one buffer.
    let kept = (Binding::States, Access::ReadWrite);
    (!spec.is_each()).then_some(kept).into_iter().collect()
}

pub(super) fn glue(out: &mut String, spec: &KernelSpec) {
    score_glue(out, spec);
    whole_glue(out, spec);
    weight_glue(out, spec);
    chain_glue(out, spec);
    let share = match spec.reads(Operand::Sinks) {
        true => "let sink = normalize_sink(head); return sink.l * exp_kept(sink.m - lse);",
        false => "return 0.0;",
    };
    function(out, "sink_share(head: u32, lse: f32) -> f32", share);
}

/// What kernels that go over pairs read: q, k, v, d_o.
pub(super) fn spec(
    kernel: Kernel,
    problem: &Problem,
    read: [Element; 4],
    tile: Tile,
) -> KernelSpec {
    let a = problem.attention();
    let names = [Binding::Q, Binding::K, Binding::V, Binding::DO];
    KernelSpec {
        elements: names.into_iter().zip(read).collect(),
        inner: Vec::new(),
        blocks: a.masks.blocks.map(|_| BlockTable::Given),
        tile: Some(tile),
        ..KernelSpec::scored(kernel, problem)
    }
    .reading(a.masks.edges.is_some(), EDGES)
}

/// Most channels of k for which rows in registers have room for another sum of them.
const FEW_CHANNELS: u32 = 32;

impl KernelSpec {
    /// Whether it corrects the gradient of q by what <d_o, o> lacks of the mean: on tiles, which sum y in another order
    /// than that; where o has few bits; and where registers have room. y and o of f32 are summed alike in registers,
    /// which leaves little, and the sum would cost software drivers at dim 64 a fifth of the time (1x8x256x64 on Mesa
    /// 22.3 and 26.2: 8.8 to 10.5 and 8.1 to 10.2 ms; 12x12x64x32: 6.0 to 6.5 and 5.9 to 6.3).
    pub(crate) fn corrects_means(&self) -> bool {
        let of = |binding| self.elements.iter().find(|(of, _)| *of == binding);
        let few_bits = of(Binding::DO).is_some_and(|(_, o)| o.storage != Storage::F32);
        let room = self.row_tile().is_none_or(|tile| tile.dim_qk <= FEW_CHANNELS);
        let kept = self.is_each() || self.knows_states();
        of(Binding::O).is_some() && !kept && (few_bits || room)
    }

    /// Whether another kernel has gone over its rows before, for the sums and means of weights.
    pub(super) fn knows_states(&self) -> bool {
        self.kernel == Kernel::FusedBackwardTileQueries
    }

    /// Backward in one pass: the gradient of q where it is wanted, and what weights are to be multiplied with. In
    /// registers or on tiles.
    pub(crate) fn fused_backward_rows(
        problem: &Problem,
        read: [Element; 4],
        d_q: Option<Element>,
        tile: Tile,
    ) -> Self {
        let kernel = match tile {
            Tile::Block(_) => Kernel::FusedBackwardTileRows,
            _ => Kernel::FusedBackwardRows,
        };
        let mut spec = spec(kernel, problem, read, tile);
        spec.elements.extend(d_q.map(|d| (Binding::O, d)));
        spec.reading(problem.attention().sinks, &[Operand::Sinks])
    }
}
