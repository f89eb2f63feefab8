//! The twin of each kernel, and what a variant says of itself through it.

use super::bindings::{Access, Binding, BindingKind};
use super::kernels::{Kernel, for_kernels};
use super::spec::{Capture, KernelSpec};
use super::twin::{Family, Twin, Visits, Work};
use crate::feature::mask::{bits, dense};

macro_rules! twins {
    ($($(#[$doc:meta])* $Kernel:ident: $stem:ident,)*) => {
        impl Kernel {
            /// What there is to know of its file.
            pub(crate) const fn twin(self) -> &'static Twin {
                match self {
                    $(Self::$Kernel => &super::$stem::TWIN,)*
                }
            }
        }
    };
}
for_kernels!(twins);

impl Kernel {
    /// Whether it is one of the fused kernels.
    pub fn is_fused(self) -> bool {
        self.twin().family == Family::Fused
    }
}

impl KernelSpec {
    /// Whether any table is read from `aux`.
    pub fn needs_aux(&self) -> bool {
        self.kernel.twin().tables.is_some() || !self.all_tables().is_empty()
    }

    /// Whether a visited key may be hidden from a row.
    pub(crate) fn is_masked(&self) -> bool {
        // Pages that do not exist are stepped over where keys come in stretches, and tested with a tile.
        let pages = self.is_paged() && self.kernel.twin().visits == Visits::Keys;
        let hides = !self.masks.is_empty() || self.has_edges() || self.bias_may_mask() || pages;
        // Weights that are left out need the loops that look at each key.
        hides || self.dropout
    }

    /// Whether it writes tables.
    pub(crate) fn writes_aux(&self) -> bool {
        self.kernel.twin().tables == Some(Access::ReadWrite)
    }

    /// Whether a tensor with an element type is written rather than read.
    pub(crate) fn stores(&self, binding: Binding) -> bool {
        match binding {
            Binding::O => self.kernel != Kernel::FusedBackwardDelta,
            _ => binding == Binding::DV,
        }
    }

    /// The resources of the kernel, ascending.
    pub fn bindings(&self) -> Vec<BindingKind> {
        use Access::{Read, ReadWrite, Uniform};
        let weights = self.writes.capture != Capture::Nothing;
        let mut list = vec![(Binding::Params, Uniform)];
        list.extend(
            self.elements.iter().map(|&(binding, _)| {
                (binding, if self.stores(binding) { ReadWrite } else { Read })
            }),
        );
        list.extend(self.writes.lse.then_some((Binding::Lse, ReadWrite)));
        list.extend(weights.then_some((Binding::Weights, ReadWrite)));
        let mask = [dense::SLOT, bits::SLOT].iter().any(|slot| self.masks.contains(slot));
        list.extend(mask.then_some((Binding::Mask, Read)));
        let bias = self.bias_may_mask() || self.added;
        list.extend(bias.then_some((Binding::Bias, Read)));
        let aux = match (self.writes_aux(), self.build.small_tables) {
            (true, _) => ReadWrite,
            (false, true) => Uniform,
            (false, false) => Read,
        };
        list.extend(self.needs_aux().then_some((Binding::Aux, aux)));
        list.extend((self.kernel.twin().bindings)(self));
        list.extend(self.writes.carry.then_some((Binding::Carry, ReadWrite)));
        list.sort_unstable_by_key(|(binding, _)| *binding);
        let kind = |(binding, access)| {
            let access = if self.build.shared.contains(&binding) { ReadWrite } else { access };
            BindingKind { binding, access }
        };
        list.into_iter().map(kind).collect()
    }

    /// Workgroups of a dispatch.
    pub(crate) fn grid(&self, work: &Work) -> [u32; 3] {
        (self.kernel.twin().grid)(self, work)
    }
}
