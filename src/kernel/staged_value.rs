//! Tiled weighted sum of v.

use super::bindings::{Access, Binding};
use super::block_tile::TILE;
use super::element::Element;
use super::generate::glue::{output_glue, page_glue, value_scale_glue};
use super::generate::glue_elements::row_glue;
use super::generate::matrix_square::{self as square, PutB};
use super::kernels::Kernel;
use super::spec::{KernelSpec, Writes};
use super::twin::{Twin, common, kernel_file};
use crate::feature::Parameter;
use crate::problem::{Operand, Problem};

/// 1: add the carry to o's sums; hand o's sums on to the carry.
pub(crate) const CARRY_IN: Parameter = Parameter::u32("carry_in");
pub(crate) const CARRY_OUT: Parameter = Parameter::u32("carry_out");

pub(super) const TWIN: Twin = Twin {
    square: true,
    commons: |spec| {
        let mut commons = vec![common!("tile")];
        commons.extend(spec.matrix_tile().is_some().then_some(common!("tile_matrix")));
        commons.push(common!("tile_selected"));
        commons
    },
    // Read only, but declared writable: all scratch may share one buffer, and a buffer cannot be bound both ways in
    // one dispatch.
    bindings: |_| {
        vec![(Binding::Scores, Access::ReadWrite), (Binding::InverseSums, Access::ReadWrite)]
    },
    glue: |out, spec| {
        page_glue(out, spec);
        row_glue(out, spec, Binding::V);
        value_scale_glue(out, spec);
        output_glue(out, spec);
    },
    generated: |spec| square::generated(spec, PutB::ByRows),
    // and sh_special
    workgroup_bytes: |spec| square::workgroup_bytes(spec, PutB::ByRows) + 16,
    grid: |_, work| [work.columns.div_ceil(TILE), work.rows.div_ceil(TILE), work.pairs()],
    parameters: &[CARRY_IN, CARRY_OUT],
    ..kernel_file!("staged_value")
};

impl KernelSpec {
    /// Backward: the gradient of q from that of the products of q and k, which stand for weights, and k, which stands
    /// for v.
    pub(crate) fn backward_queries(problem: &Problem, k: Element, d_q: Element) -> Self {
        Self::staged_value(problem, k, d_q, false)
    }

    /// Stage 3: weighted sums of v.
    pub fn staged_value(problem: &Problem, v: Element, o: Element, carry: bool) -> Self {
        Self {
            elements: vec![(Binding::V, v), (Binding::O, o)],
            writes: Writes { carry, ..Writes::NOTHING },
            ..Self::ranged(Kernel::StagedValue, problem).without_data_masks()
        }
        .reading(problem.attention().kv_scales.is_some(), &[Operand::VScales])
    }
}
