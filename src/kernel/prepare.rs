//! Rotates, projects or normalises rows of q or k.

use super::bindings::Binding;
use super::element::Element;
use super::generate::glue::{copy_glue, rotary_glue};
use super::kernels::Kernel;
use super::spec::{KernelSpec, Preparation};
use super::twin::{Family, Twin, common, kernel_file};
use crate::feature::Parameter;
use crate::problem::{Operand, Problem};

/// First row that is rotated, its position, position ids per sequence and from one sequence's to the next one's (0
/// where one row serves all), and channels of a row before it is prepared.
pub(crate) const ROTARY_FROM: Parameter = Parameter::u32("rotary_from");
pub(crate) const ROTARY_START: Parameter = Parameter::u32("rotary_start");
pub(crate) const POSITIONS_ROW: Parameter = Parameter::u32("positions_row");
pub(crate) const POSITIONS_STRIDE: Parameter = Parameter::u32("positions_stride");
pub(crate) const DIM_SOURCE: Parameter = Parameter::u32("dim_source");

pub(super) const TWIN: Twin = Twin {
    family: Family::Alone,
    commons: |_| vec![common!("angle")],
    glue: |out, spec| {
        rotary_glue(out, spec);
        copy_glue(out, spec);
    },
    grid: |_, work| [work.rows.div_ceil(64), work.pairs(), 1],
    parameters: &[ROTARY_FROM, ROTARY_START, POSITIONS_ROW, POSITIONS_STRIDE, DIM_SOURCE],
    ..kernel_file!("prepare")
};

impl KernelSpec {
    /// An f32 copy of q or k, rotated, projected or normalised.
    pub fn prepare(problem: &Problem, operand: Operand, read: Element, write: Element) -> Self {
        let a = problem.attention();
        let keys = operand == Operand::K;
        let preparation = Preparation {
            keys,
            rotary: a.rotary.map(|rotary| rotary.interleaved),
            ids: a.rotary.and_then(|rotary| rotary.ids_of(keys, &a.shape)).map(|(table, _)| table),
            at_end: !keys && a.rotary.is_some_and(|rotary| rotary.at_end),
            normalized: a.cosine.is_some(),
            head_scale: !keys && a.cosine.is_some_and(|cosine| cosine.head_scale),
            projected: !keys && a.general.is_some(),
        };
        Self {
            elements: vec![(Binding::Q, read), (Binding::O, write)],
            preparation: Some(preparation),
            ..Self::empty(Kernel::Prepare)
        }
        .reading(a.packed.is_some() && !keys, &[Operand::CuSeqlensQ])
        .reading(a.packs_keys() && (keys || preparation.at_end), &[Operand::CuSeqlensKv])
        .reading(preparation.at_end && a.kv_lengths, &[Operand::KvLengths])
        .reading(preparation.at_end && a.q_lengths, &[Operand::QLengths])
    }

    /// The same without what follows the rotation: rows as they are projected or normalised.
    pub(crate) fn turned_only(mut self, write: Element) -> Self {
        for (_, element) in self.elements.iter_mut().filter(|(x, _)| *x == Binding::O) {
            *element = write;
        }
        if let Some(x) = &mut self.preparation {
            (x.normalized, x.head_scale, x.projected) = (false, false, false);
        }
        self
    }
}
