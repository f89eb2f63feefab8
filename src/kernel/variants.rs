//! What the constructors of specs share.

use super::bindings::Binding;
use super::element::Element;
use super::kernels::Kernel;
use super::spec::{BlockTable, Build, KernelSpec, Writes};
use super::tile::Tile;
use crate::feature::mask::local;
use crate::problem::{Operand, Problem};

/// The tables of a graph.
pub(super) const EDGES: &[Operand] = &[Operand::EdgeStarts, Operand::EdgeKeys];

impl KernelSpec {
    pub(super) fn empty(kernel: Kernel) -> Self {
        Self {
            kernel,
            elements: Vec::new(),
            inner: Vec::new(),
            normalize: None,
            scores: Vec::new(),
            masks: Vec::new(),
            diagonal: None,
            alibi: None,
            tables: Vec::new(),
            blocks: None,
            factor: false,
            dropout: false,
            preparation: None,
            backward: None,
            added: false,
            writes: Writes::NOTHING,
            adds_to: Vec::new(),
            build: Build::default(),
            tile: None,
        }
    }

    /// The masks that narrow key ranges, and lengths: what every staged kernel shares.
    pub(super) fn ranged(kernel: Kernel, problem: &Problem) -> Self {
        let a = problem.attention();
        let has_diagonal = a.masks.iter().any(|mask| mask.align().is_some());
        Self {
            masks: problem.masks().iter().map(|mask| mask.slot()).collect(),
            diagonal: has_diagonal.then(|| problem.align().slot()),
            factor: a.masks.iter().any(|mask| mask.weighs()),
            dropout: a.dropout.is_some(),
            ..Self::empty(kernel)
        }
        .reading(a.packed.is_some(), &[Operand::CuSeqlensQ])
        .reading(a.packs_keys(), &[Operand::CuSeqlensKv])
        .reading(a.paged.is_some(), &[Operand::PageTable])
        .reading(a.table.is_some(), &[Operand::Table])
        .reading(a.kv_lengths, &[Operand::KvLengths])
        .reading(a.q_lengths, &[Operand::QLengths])
    }

    /// What kernels share that make scores and weigh them at once.
    pub(super) fn scored(kernel: Kernel, problem: &Problem) -> Self {
        let a = problem.attention();
        Self {
            inner: a.inner.slots(),
            normalize: Some(a.normalizer.slot()),
            scores: problem.scores().iter().map(|s| (s.stage(), s.slot())).collect(),
            alibi: a.alibi.map(|alibi| alibi.align.slot()),
            ..Self::ranged(kernel, problem)
        }
    }

    /// A kernel that makes scores, weighs them and sums v in one pass.
    pub(super) fn one_pass(
        kernel: Kernel,
        problem: &Problem,
        elements: [Element; 4],
        tile: Tile,
        blocks: Option<BlockTable>,
    ) -> Self {
        let a = problem.attention();
        let names = [Binding::Q, Binding::K, Binding::V, Binding::O];
        Self {
            elements: names.into_iter().zip(elements).collect(),
            writes: Writes { lse: a.lse, ..Writes::NOTHING },
            blocks,
            tile: Some(tile),
            ..Self::scored(kernel, problem)
        }
        .reading(a.sinks, &[Operand::Sinks])
        .reading(a.kv_scales.is_some(), &[Operand::VScales])
        .reading(a.masks.edges.is_some(), EDGES)
    }

    /// Masks given as data narrow no range; stages 2 and 3 see their effect in the scores.
    pub(super) fn without_data_masks(mut self) -> Self {
        let factor = self.factor && self.kernel != Kernel::StagedValue;
        self.masks.retain(|mask| mask.narrows || (factor && *mask == local::SLOT));
        self.factor = factor;
        self.dropout &= self.kernel != Kernel::StagedValue;
        self.ignoring(&[Operand::Table])
    }
}
