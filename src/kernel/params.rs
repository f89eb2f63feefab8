//! The parameter block: what changes from dispatch to dispatch.
//!
//! It has three parts: what every kernel knows (below), where each small table starts in `aux` (one word for
//! each table of the list of operands), and what features and kernels declare for themselves. Its WGSL is made
//! from the same lists, so that a parameter is declared once, beside what it means.
//!
//! Element (b, h, i, c) of operand x is
//! `x[x_base + b * x_stride_batch + h * x_stride_head + i * x_stride_row + c]` in arithmetic modulo 2³²: x_base
//! already holds minus the origin of the bound range, so kernels use absolute positions. `*0` and `*_n` are origin
//! and extent of the block of work that a dispatch does.

use std::collections::HashMap;
use std::sync::LazyLock;

use bytemuck::{Pod, Zeroable};

use super::bindings::Binding;
use super::kernels::Kernel;
use crate::feature::{Operand, Parameter, SLOTS, Setting, prepare, slots};
use crate::problem::{PACKED_PARAMETERS, PAGED_PARAMETERS};

/// What features have that are no slots.
const OTHERS: &[&[Parameter]] = &[prepare::PARAMETERS, PACKED_PARAMETERS, PAGED_PARAMETERS];

/// Parameters of slots, of [`OTHERS`] and of kernels.
const DECLARED: usize = declared();

const TABLES: usize = Operand::TABLES.len();

const fn declared() -> usize {
    let (mut n, mut i) = (0, 0);
    while i < SLOTS.len() {
        let mut j = 0;
        while j < SLOTS[i].len() {
            n += SLOTS[i][j].parameters.len();
            j += 1;
        }
        i += 1;
    }
    i = 0;
    while i < OTHERS.len() {
        n += OTHERS[i].len();
        i += 1;
    }
    i = 0;
    while i < Kernel::ALL.len() {
        n += Kernel::ALL[i].twin().parameters.len();
        i += 1;
    }
    n
}

/// Place of each declared parameter.
static PLACES: LazyLock<HashMap<&'static str, usize>> = LazyLock::new(|| {
    all_declared().enumerate().map(|(place, parameter)| (parameter.name, place)).collect()
});

fn all_declared() -> impl Iterator<Item = &'static Parameter> {
    let slots = slots().flat_map(|slot| slot.parameters);
    let kernels = Kernel::ALL.iter().flat_map(|kernel| kernel.twin().parameters);
    slots.chain(OTHERS.iter().copied().flatten()).chain(kernels)
}

macro_rules! params {
    ($($(#[$doc:meta])* $name:ident: $kind:ident,)*) => {
        /// What changes from dispatch to dispatch.
        #[repr(C)]
        #[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
        pub struct Params {
            $($(#[$doc])* pub $name: $kind,)*
            /// First word of each small table in `aux`, in the order of the operands' declaration.
            pub(crate) tables: [u32; TABLES],
            /// The bits of what slots, other features and kernels declare.
            pub(crate) declared: [u32; DECLARED],
        }

        impl Params {
            /// What every kernel has.
            const COMMON: &'static [(&'static str, &'static str)] =
                &[$((stringify!($name), stringify!($kind)),)*];
        }
    };
}

params! {
    /// First sequence.
    batch0: u32,
    /// First query head.
    head0: u32,
    /// Query heads.
    head_n: u32,
    /// First query row.
    row0: u32,
    /// Query rows.
    row_n: u32,
    /// First key.
    key0: u32,
    /// Keys.
    key_n: u32,
    /// Query heads of the whole call.
    heads_q: u32,
    /// Query heads per key/value head.
    group: u32,
    /// Query rows of the whole call.
    seq_q: u32,
    /// Keys of the whole call.
    seq_kv: u32,
    /// Head dimension of q and k.
    dim_qk: u32,
    /// Head dimension of v and o.
    dim_v: u32,
    /// Base of q, modulo 2³².
    q_base: u32,
    /// Stride of q.
    q_stride_batch: u32,
    /// Stride of q.
    q_stride_head: u32,
    /// Stride of q.
    q_stride_row: u32,
    /// Base of k, modulo 2³².
    k_base: u32,
    /// Stride of k.
    k_stride_batch: u32,
    /// Stride of k.
    k_stride_head: u32,
    /// Stride of k.
    k_stride_row: u32,
    /// Base of v, modulo 2³².
    v_base: u32,
    /// Stride of v.
    v_stride_batch: u32,
    /// Stride of v.
    v_stride_head: u32,
    /// Stride of v.
    v_stride_row: u32,
    /// Base of o, modulo 2³².
    o_base: u32,
    /// Stride of o.
    o_stride_batch: u32,
    /// Stride of o.
    o_stride_head: u32,
    /// Stride of o.
    o_stride_row: u32,
    /// Base of the mask, in bytes, modulo 2³².
    mask_base: u32,
    /// Base of the bias, modulo 2³².
    bias_base: u32,
    /// Base of lse, modulo 2³².
    lse_base: u32,
    /// Base of weights, modulo 2³².
    weights_base: u32,
    /// The bits of −∞.
    minus_infinity: u32,
}

impl Default for Params {
    fn default() -> Self {
        Self::zeroed()
    }
}

impl Params {
    /// The block with values of declared parameters.
    pub(crate) fn with(mut self, settings: impl IntoIterator<Item = Setting>) -> Self {
        for Setting { parameter, bits } in settings {
            let place = PLACES.get(parameter.name).and_then(|place| self.declared.get_mut(*place));
            debug_assert!(place.is_some(), "{} is in no list of parameters", parameter.name);
            if let Some(place) = place {
                *place = bits;
            }
        }
        self
    }

    /// The base of what a binding holds; `None` for scratch and tables, which start at their binding's start.
    pub(crate) fn base_mut(&mut self, binding: Binding) -> Option<&mut u32> {
        match binding {
            Binding::Q => Some(&mut self.q_base),
            Binding::K => Some(&mut self.k_base),
            Binding::V => Some(&mut self.v_base),
            Binding::O => Some(&mut self.o_base),
            Binding::Lse => Some(&mut self.lse_base),
            Binding::Weights => Some(&mut self.weights_base),
            Binding::Mask => Some(&mut self.mask_base),
            Binding::Bias => Some(&mut self.bias_base),
            Binding::Params | Binding::Aux | Binding::Angles => None,
            Binding::Scores | Binding::InverseSums | Binding::Carry => None,
            Binding::Partials | Binding::States => None,
            // Their kernels declare where they start.
            Binding::PartsLse | Binding::Projection => None,
            // Of these too in the fused kernels of gradients.
            Binding::DO | Binding::DV => None,
            Binding::DLse => Some(&mut self.lse_base),
            Binding::DWeights => Some(&mut self.weights_base),
            Binding::DTable => Some(&mut self.o_base),
            Binding::Grads | Binding::Entries | Binding::RowSums | Binding::CenterSums => None,
        }
    }

    /// First word of a small table in `aux`; `None` for what is no table.
    pub(crate) fn table_mut(&mut self, operand: Operand) -> Option<&mut u32> {
        operand.table_index().and_then(|place| self.tables.get_mut(place))
    }

    /// The block with the place of a table.
    pub(crate) fn with_table(mut self, operand: Operand, word: u32) -> Self {
        self.table_mut(operand).into_iter().for_each(|place| *place = word);
        self
    }

    /// Every member in order: name, WGSL type.
    pub fn fields() -> Vec<(String, &'static str)> {
        let common = Self::COMMON.iter().map(|(name, kind)| ((*name).to_owned(), *kind));
        let tables = Operand::TABLES.iter().map(|table| (format!("aux_{table}"), "u32"));
        let declared = all_declared().map(|x| (x.name.to_owned(), x.kind.name()));
        common.chain(tables).chain(declared).collect()
    }

    /// The block in WGSL.
    pub fn wgsl() -> &'static str {
        static TEXT: LazyLock<String> = LazyLock::new(|| {
            let member = |(name, kind): (String, &str)| format!("  {name}: {kind},\n");
            let members: String = Params::fields().into_iter().map(member).collect();
            format!("struct Params {{\n{members}}}\n")
        });
        &TEXT
    }
}
