//! Tiled QKᵀ with score chain and masks.

use std::fmt::Write;

use super::bindings::{Access, Binding};
use super::block_tile::TILE;
use super::element::Element;
use super::generate::function;
use super::generate::glue::{output_glue, score_glue};
use super::generate::glue_elements::row_glue;
use super::generate::matrix_square::{self as square, PutB};
use super::kernels::Kernel;
use super::spec::{BlockTable, Capture, KernelSpec, Writes};
use super::twin::{Family, Twin, Visits, common, kernel_file};
use super::variants::EDGES;
use crate::feature::{Parameter, Slot};
use crate::problem::{Problem, WeightsAt};

/// Elements between rows of the score scratch; a multiple of 4.
pub(crate) const SCORE_STRIDE: Parameter = Parameter::u32("score_stride");

pub(super) const TWIN: Twin = Twin {
    family: Family::Scores,
    visits: Visits::Tiles,
    square: true,
    commons: |spec| {
        let mut commons = vec![common!("modify"), common!("tile")];
        commons.extend(spec.matrix_tile().is_some().then_some(common!("tile_matrix")));
        commons.extend(spec.is_additive().then_some(common!("tile_sum")));
        commons
    },
    bindings: |_| vec![(Binding::Scores, Access::ReadWrite)],
    glue,
    generated: |spec| square::generated(spec, PutB::ByColumns),
    workgroup_bytes: |spec| square::workgroup_bytes(spec, PutB::ByColumns),
    grid: |_, work| [work.keys.div_ceil(TILE), work.rows.div_ceil(TILE), work.pairs()],
    parameters: &[SCORE_STRIDE],
    ..kernel_file!("staged_score")
};

fn glue(out: &mut String, spec: &KernelSpec) {
    score_glue(out, spec);
    row_glue(out, spec, Binding::K);
    let _ = writeln!(out, "const PAGED: bool = {};", spec.is_paged());
    let signature = "inner_tile(acc: ptr<function, array<vec4<f32>, 16>>, head: u32, depth: u32, x: u32, y: u32)";
    let tile = if spec.is_additive() {
        "tile_sum(acc, head, depth, x, y);"
    } else {
        "tile_products(acc, false, x, y);"
    };
    function(out, signature, tile);
    output_glue(out, spec);
}

impl KernelSpec {
    /// Backward: products of rows of q with rows of k by an inner loop, without modifiers and masks.
    pub(crate) fn backward_products(
        problem: &Problem,
        q: Element,
        k: Element,
        inner: Vec<Slot>,
    ) -> Self {
        Self {
            elements: vec![(Binding::Q, q), (Binding::K, k)],
            inner,
            blocks: problem.attention().masks.blocks.map(|_| BlockTable::Given),
            ..Self::ranged(Kernel::StagedScore, problem).without_data_masks()
        }
    }

    /// Stage 1: scores of a block of rows.
    pub fn staged_score(problem: &Problem, q: Element, k: Element) -> Self {
        let a = problem.attention();
        let capture = match a.weights {
            Some(at) if at != WeightsAt::Probabilities => Capture::At(at),
            _ => Capture::Nothing,
        };
        Self {
            elements: vec![(Binding::Q, q), (Binding::K, k)],
            inner: a.inner.slots(),
            scores: problem.scores().iter().map(|s| (s.stage(), s.slot())).collect(),
            alibi: a.alibi.map(|alibi| alibi.align.slot()),
            blocks: a.masks.blocks.map(|_| BlockTable::Given),
            writes: Writes { capture, ..Writes::NOTHING },
            ..Self::ranged(Kernel::StagedScore, problem)
        }
        .reading(a.masks.edges.is_some(), EDGES)
    }
}
