//! What the constructors of specs share.

use super::bindings::Binding;
use super::element::Element;
use super::kernels::Kernel;
use super::spec::{BlockTable, Capture, KernelSpec};
use super::tile::Tile;
use crate::feature::mask::local;
use crate::problem::Problem;

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
            kv_lengths: false,
            q_lengths: false,
            edges: false,
            factor: false,
            packed: false,
            paged: false,
            table: false,
            sink: false,
            lse: false,
            capture: Capture::Nothing,
            carry: false,
            blocks: None,
            preparation: None,
            added: false,
            unchecked: false,
            small_tables: false,
            shared: Vec::new(),
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
            packed: a.packed.is_some(),
            paged: a.paged.is_some(),
            table: a.table.is_some(),
            kv_lengths: a.kv_lengths,
            q_lengths: a.q_lengths,
            ..Self::empty(kernel)
        }
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
            sink: a.sinks,
            lse: a.lse,
            blocks,
            edges: a.masks.edges.is_some(),
            tile: Some(tile),
            ..Self::scored(kernel, problem)
        }
    }

    /// Masks given as data narrow no range; stages 2 and 3 see their effect in the scores.
    pub(super) fn without_data_masks(mut self) -> Self {
        let factor = self.factor && self.kernel != Kernel::StagedValue;
        self.masks.retain(|mask| mask.narrows || (factor && *mask == local::SLOT));
        self.factor = factor;
        self.table = false;
        self
    }
}
