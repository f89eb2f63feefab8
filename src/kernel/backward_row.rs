//! Backward: weights and gradients of scores.

use std::fmt::Write;

use super::bindings::{Access, Binding};
use super::generate::function;
use super::generate::glue::{score_glue, start_glue, weight_glue};
use super::generate::registers::row_types;
use super::kernels::Kernel;
use super::spec::{BackwardParts, BlockTable, KernelSpec};
use super::staged_normalize::by_four_rows;
use super::twin::{Twin, common, kernel_file};
use super::variants::EDGES;
use crate::feature::score::Stage;
use crate::problem::{BackwardProblem, Operand};

pub(super) const TWIN: Twin = Twin {
    backward: true,
    commons: |spec| {
        let mut commons = vec![
            common!("modify"),
            common!("row_lanes"),
            common!("backward"),
            common!("normalizer"),
        ];
        commons.extend(spec.is_each().then_some(common!("normalize_each")));
        commons.push(common!("normalize_staged"));
        commons
    },
    bindings,
    glue: |out, spec| {
        *out += &row_types(4);
        glue(out, spec);
        start_glue(out, spec);
    },
    // sh_m, sh_l and sh_d, one f32 per invocation each
    workgroup_bytes: |_| 3 * 64 * 4,
    grid: by_four_rows,
    ..kernel_file!("backward_row")
};

/// Planes of scratch, and what comes in and is kept.
pub(super) fn bindings(spec: &KernelSpec) -> Vec<(Binding, Access)> {
    let scratch = [Binding::Scores, Binding::Grads, Binding::InverseSums];
    let mut all: Vec<_> = scratch.map(|binding| (binding, Access::ReadWrite)).into();
    if let Some(parts) = spec.backward {
        all.extend(parts.entries.then_some((Binding::Entries, Access::ReadWrite)));
        all.extend(parts.row_sums.then_some((Binding::RowSums, Access::ReadWrite)));
        all.extend(parts.centers.then_some((Binding::CenterSums, Access::ReadWrite)));
        all.extend(parts.lse.then_some((Binding::DLse, Access::Read)));
        all.extend(parts.weights.then_some((Binding::DWeights, Access::Read)));
    }
    all
}

/// Scores, derivatives, and what comes in and is kept.
pub(super) fn glue(out: &mut String, spec: &KernelSpec) {
    score_glue(out, spec);
    weight_glue(out, spec);
    chain_glue(out, spec);
    let Some(parts) = spec.backward else { return };
    let load = |on: bool, name: &str, base: &str| match on {
        true => format!("return {name}[params.{base} + i];"),
        false => "return 0.0;".into(),
    };
    function(out, "d_lse_load(i: u32) -> f32", &load(parts.lse, "d_lse", "lse_base"));
    let weights = load(parts.weights, "d_weights", "weights_base");
    function(out, "d_weights_load(i: u32) -> f32", &weights);
    let store = |on: bool, text: &'static str| if on { text } else { "" };
    let entries = store(parts.entries, "entries[i] = v;");
    function(out, "entries_store(i: u32, v: vec4<f32>)", entries);
    function(out, "row_sums_store(i: u32, v: f32)", store(parts.row_sums, "row_sums[i] = v;"));
    let store_center = store(parts.centers, "center_sums[i] = v;");
    function(out, "center_sums_store(i: u32, v: f32)", store_center);
    let slope = if spec.factor { "return mask_local_slope(p);" } else { "return 0.0;" };
    function(out, "weight_slope(p: Position) -> f32", slope);
    let _ = writeln!(out, "const CENTERS: bool = {};", parts.centers && spec.factor);
    let _ = writeln!(out, "const ENTRIES: bool = {};", parts.entries);
}

/// `chain_derivatives(product, p)`: of the score by the product, and by what biases were added to.
pub(super) fn chain_glue(out: &mut String, spec: &KernelSpec) {
    let mut body = "var s = product; var d = vec2<f32>(1.0);".to_owned();
    for (_, slot) in spec.scores.iter().filter(|(stage, _)| *stage <= Stage::Biased) {
        let name = slot.function();
        if slot.has_derivative() {
            // The caller's own come behind the biases.
            let of = if slot.custom { "d" } else { "d.x" };
            body += &format!(" {of} *= {name}_derivative(s, p);");
        }
        body += &format!(" s = {name}(s, p);");
    }
    let signature = "chain_derivatives(product: f32, p: Position) -> vec2<f32>";
    function(out, signature, &format!("{body} return d;"));
}

impl KernelSpec {
    /// Backward: weights and gradients of a block of rows.
    pub(crate) fn backward_row(problem: &BackwardProblem, parts: BackwardParts) -> Self {
        let call = problem.problem();
        let a = call.attention();
        let kernel = match a.normalizer.needs_row() {
            true => Kernel::BackwardThreshold,
            false => Kernel::BackwardRow,
        };
        Self {
            backward: Some(parts),
            blocks: a.masks.blocks.map(|_| BlockTable::Given),
            inner: Vec::new(),
            ..Self::scored(kernel, call)
        }
        .reading(a.sinks, &[Operand::Sinks])
        .reading(a.masks.edges.is_some(), EDGES)
    }
}

impl BackwardParts {
    /// What the gradients that are wanted need.
    pub(crate) fn of(problem: &BackwardProblem) -> Self {
        let asked = problem.backward();
        let entries = [Operand::Bias, Operand::AlibiSlopes, Operand::Relative, Operand::EdgeBias];
        Self {
            lse: asked.from_lse,
            weights: asked.from_weights,
            entries: entries.iter().any(|operand| problem.wants(*operand)),
            row_sums: problem.wants(Operand::Sinks),
            centers: problem.wants(Operand::Centers),
        }
    }
}
