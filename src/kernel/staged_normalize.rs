//! Row normaliser.

use super::bindings::{Access, Binding};
use super::generate::glue::{output_glue, start_glue, weight_glue};
use super::generate::registers::row_types;
use super::kernels::Kernel;
use super::spec::{Capture, KernelSpec, Writes};
use super::twin::{Twin, Work, common, kernel_file};
use crate::feature::normalize::Normalizer;
use crate::problem::{Operand, Problem, WeightsAt};

pub(super) const TWIN: Twin = Twin {
    commons: |spec| {
        let mut commons = vec![common!("row_lanes"), common!("normalizer")];
        commons.extend(spec.is_each().then_some(common!("normalize_each")));
        // Hard attention has its own, which remember the key.
        commons.extend((!spec.is_hard()).then_some(common!("normalize_staged")));
        commons
    },
    bindings: scratch,
    glue: |out, spec| {
        *out += &row_types(4);
        weight_glue(out, spec);
        start_glue(out, spec);
        output_glue(out, spec);
    },
    // sh_m and sh_l, one f32 per invocation each
    workgroup_bytes: |_| 2 * 64 * 4,
    grid: by_four_rows,
    ..kernel_file!("staged_normalize")
};

/// Weights in place of scores, and a reciprocal for each row.
pub(super) fn scratch(_: &KernelSpec) -> Vec<(Binding, Access)> {
    vec![(Binding::Scores, Access::ReadWrite), (Binding::InverseSums, Access::ReadWrite)]
}

/// A workgroup takes four rows.
pub(super) fn by_four_rows(_: &KernelSpec, work: &Work) -> [u32; 3] {
    [work.rows.div_ceil(4), work.pairs(), 1]
}

impl KernelSpec {
    /// Stage 2: weights of a block of rows.
    pub fn staged_normalize(problem: &Problem) -> Self {
        let a = problem.attention();
        let kernel = match a.normalizer {
            Normalizer::Monotonic => Kernel::StagedMonotonic,
            other if other.needs_row() => Kernel::StagedThreshold,
            _ => Kernel::StagedNormalize,
        };
        let capture = match a.weights {
            Some(WeightsAt::Probabilities) => Capture::At(WeightsAt::Probabilities),
            _ => Capture::Nothing,
        };
        Self {
            normalize: Some(a.normalizer.slot()),
            writes: Writes { lse: a.lse, capture, carry: false },
            ..Self::ranged(kernel, problem).without_data_masks()
        }
        .reading(a.sinks, &[Operand::Sinks])
    }
}
