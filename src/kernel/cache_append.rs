//! Writes new rows into a cache.

use super::bindings::{Access, Binding};
use super::element::Element;
use super::generate::glue::rotary_glue;
use super::generate::glue_elements::store_row_glue;
use super::kernels::Kernel;
use super::spec::{KernelSpec, Preparation};
use super::twin::{Family, Twin, common, kernel_file};
use crate::problem::Operand;
use crate::tensor::Scales;

pub(super) const TWIN: Twin = Twin {
    family: Family::Alone,
    tables: Some(Access::Read),
    bindings: |spec| {
        let turned = spec.preparation.is_some_and(|x| x.rotary.is_some());
        turned.then_some((Binding::Angles, Access::Read)).into_iter().collect()
    },
    glue: |out, spec| {
        rotary_glue(out, spec);
        let element = spec.elements.iter().find(|(binding, _)| *binding == Binding::O);
        element.iter().for_each(|(_, element)| store_row_glue(out, *element));
    },
    commons: |_| vec![common!("small_float")],
    invocations: |_| 32,
    // sh_most, where a row has one scale
    workgroup_bytes: |spec| {
        if spec.scales(Binding::O) == Scales::Row { 32 * 4 } else { 0 }
    },
    ..kernel_file!("cache_append")
};

impl KernelSpec {
    /// New rows of k or v into a cache, perhaps turned on the way.
    pub fn cache_append(read: Element, write: Element, paged: bool, rotary: Option<bool>) -> Self {
        let preparation = Preparation {
            keys: rotary.is_some(),
            rotary,
            ids: None,
            at_end: false,
            normalized: false,
            head_scale: false,
            projected: false,
        };
        Self {
            elements: vec![(Binding::Q, read), (Binding::O, write)],
            preparation: Some(preparation),
            ..Self::empty(Kernel::CacheAppend)
        }
        .reading(paged, &[Operand::PageTable])
    }
}
