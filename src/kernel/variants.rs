//! The variant that each schedule needs for a problem: how a `KernelSpec` is made.

use super::bindings::Binding;
use super::block_tile::BlockTile;
use super::element::{Element, RowTile, SplitTile, Width};
use super::matrix_tile::MatrixTile;
use super::schedule::Kernel;
use super::spec::{BlockTable, Capture, KernelSpec, Preparation, by_position};
use crate::feature::mask::{dense, edges, local, segments};
use crate::feature::normalize::Normalizer;
use crate::feature::score::bias;
use crate::problem::{Operand, Problem, WeightsAt};
use crate::tensor::Storage;

impl KernelSpec {
    fn empty(kernel: Kernel) -> Self {
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
            rows: None,
            tile: None,
            split: None,
            matrix: None,
        }
    }

    /// The masks that narrow key ranges, and lengths: what every staged kernel shares.
    fn ranged(kernel: Kernel, problem: &Problem) -> Self {
        let a = problem.attention();
        let has_diagonal =
            a.causal.is_some() || a.window.is_some() || a.dilated.is_some() || a.chunked.is_some();
        Self {
            masks: problem.masks().iter().map(|mask| mask.slot()).collect(),
            diagonal: has_diagonal.then(|| problem.align().slot()),
            factor: a.local.is_some_and(|local| local.gaussian),
            packed: a.packed.is_some(),
            paged: a.paged.is_some(),
            table: a.table.is_some(),
            kv_lengths: a.kv_lengths,
            q_lengths: a.q_lengths,
            ..Self::empty(kernel)
        }
    }

    /// What kernels share that make scores and weigh them at once.
    fn scored(kernel: Kernel, problem: &Problem) -> Self {
        let a = problem.attention();
        Self {
            inner: a.inner.slots(),
            normalize: Some(a.normalizer.slot()),
            scores: problem.scores().iter().map(|s| (s.stage(), s.slot())).collect(),
            alibi: a.alibi.map(|alibi| alibi.align.slot()),
            ..Self::ranged(kernel, problem)
        }
    }

    /// Stage 1: scores of a block of rows.
    pub fn staged_score(problem: &Problem, q: Element, k: Element) -> Self {
        let a = problem.attention();
        Self {
            elements: vec![(Binding::Q, q), (Binding::K, k)],
            inner: a.inner.slots(),
            scores: problem.scores().iter().map(|s| (s.stage(), s.slot())).collect(),
            alibi: a.alibi.map(|alibi| alibi.align.slot()),
            blocks: a.blocks.map(|_| BlockTable::Given),
            edges: a.edges.is_some(),
            capture: match a.weights {
                Some(at) if at != WeightsAt::Probabilities => Capture::At(at),
                _ => Capture::Nothing,
            },
            ..Self::ranged(Kernel::StagedScore, problem)
        }
    }

    /// Stage 2: weights of a block of rows.
    pub fn staged_normalize(problem: &Problem) -> Self {
        let a = problem.attention();
        let kernel = match a.normalizer {
            Normalizer::Monotonic => Kernel::StagedMonotonic,
            other if other.needs_row() => Kernel::StagedThreshold,
            _ => Kernel::StagedNormalize,
        };
        Self {
            normalize: Some(a.normalizer.slot()),
            sink: a.sinks,
            lse: a.lse,
            capture: match a.weights {
                Some(WeightsAt::Probabilities) => Capture::At(WeightsAt::Probabilities),
                _ => Capture::Nothing,
            },
            ..Self::ranged(kernel, problem).without_data_masks()
        }
    }

    /// Stage 3: weighted sums of v.
    pub fn staged_value(problem: &Problem, v: Element, o: Element, carry: bool) -> Self {
        Self {
            elements: vec![(Binding::V, v), (Binding::O, o)],
            carry,
            ..Self::ranged(Kernel::StagedValue, problem).without_data_masks()
        }
    }

    /// An f32 copy of q or k, rotated, projected or normalised.
    pub fn prepare(problem: &Problem, operand: Operand, read: Element, write: Element) -> Self {
        let a = problem.attention();
        let keys = operand == Operand::K;
        let preparation = Preparation {
            keys,
            rotary: a.rotary.map(|rotary| [rotary.interleaved, rotary.ids]),
            at_end: !keys && a.rotary.is_some_and(|rotary| rotary.at_end),
            normalized: a.cosine.is_some(),
            head_scale: !keys && a.cosine.is_some_and(|cosine| cosine.head_scale),
            projected: !keys && a.general.is_some(),
        };
        Self {
            elements: vec![(Binding::Q, read), (Binding::O, write)],
            preparation: Some(preparation),
            kv_lengths: preparation.at_end && a.kv_lengths,
            q_lengths: preparation.at_end && a.q_lengths,
            ..Self::empty(Kernel::Prepare)
        }
    }

    /// A block table from the masks that are data, and from the caller's own where `functions` says so.
    pub fn classify(problem: &Problem, functions: bool) -> Self {
        let ranged = Self::ranged(Kernel::Classify, problem);
        let mut masks = ranged.masks.clone();
        masks.retain(|slot| {
            *slot == dense::SLOT || *slot == segments::SLOT || (functions && slot.custom)
        });
        let scores = problem.scores();
        let bias = scores.iter().map(|s| (s.stage(), s.slot())).filter(|(_, s)| *s == bias::SLOT);
        Self {
            masks,
            scores: bias.collect(),
            blocks: Some(BlockTable::Classified),
            table: ranged.table && functions,
            ..Self::empty(Kernel::Classify)
        }
    }

    /// One pass: scores, softmax and weighted sums of a block of rows.
    pub fn fused(
        problem: &Problem,
        elements: [Element; 4],
        rows: RowTile,
        blocks: Option<BlockTable>,
    ) -> Self {
        let a = problem.attention();
        let kernel = match (a.edges.is_some(), rows.fetch > 1) {
            (true, _) => Kernel::EdgeForward,
            (false, true) => Kernel::FusedForwardSubgroup,
            (false, false) => Kernel::FusedForward,
        };
        // What is visited along edges needs no look at the edges.
        let mut ranged = Self::scored(kernel, problem);
        ranged.masks.retain(|mask| *mask != edges::SLOT);
        let names = [Binding::Q, Binding::K, Binding::V, Binding::O];
        Self {
            elements: names.into_iter().zip(elements).collect(),
            sink: a.sinks,
            lse: a.lse,
            blocks,
            edges: a.edges.is_some(),
            rows: Some(rows),
            ..ranged
        }
    }

    /// One pass on a tile of rows and keys.
    pub fn fused_tile(
        problem: &Problem,
        elements: [Element; 4],
        tile: BlockTile,
        blocks: Option<BlockTable>,
    ) -> Self {
        let a = problem.attention();
        let names = [Binding::Q, Binding::K, Binding::V, Binding::O];
        Self {
            elements: names.into_iter().zip(elements).collect(),
            sink: a.sinks,
            lse: a.lse,
            blocks,
            tile: Some(tile),
            ..Self::scored(Kernel::FusedForwardTile, problem)
        }
    }

    /// One pass with both products on matrix units.
    pub fn fused_matrix(problem: &Problem, elements: [Element; 4], tile: MatrixTile) -> Self {
        let a = problem.attention();
        let names = [Binding::Q, Binding::K, Binding::V, Binding::O];
        Self {
            elements: names.into_iter().zip(elements).collect(),
            sink: a.sinks,
            lse: a.lse,
            blocks: a.blocks.map(|_| BlockTable::Given),
            edges: a.edges.is_some(),
            matrix: Some(tile),
            ..Self::scored(Kernel::FusedForwardMatrix, problem)
        }
    }

    /// Shares of the keys of a few rows.
    pub fn split_forward(problem: &Problem, elements: [Element; 3], tile: SplitTile) -> Self {
        Self {
            elements: [Binding::Q, Binding::K, Binding::V].into_iter().zip(elements).collect(),
            split: Some(tile),
            ..Self::scored(Kernel::SplitForward, problem)
        }
    }

    /// Joins shares into o and lse.
    pub fn split_merge(problem: &Problem, o: Element) -> Self {
        let a = problem.attention();
        let ranged = Self::ranged(Kernel::SplitMerge, problem);
        Self {
            elements: vec![(Binding::O, o)],
            normalize: Some(a.normalizer.slot()),
            sink: a.sinks,
            lse: a.lse,
            masks: Vec::new(),
            diagonal: None,
            factor: false,
            paged: false,
            table: false,
            ..ranged
        }
    }

    /// What functions of the caller's own say of each pair.
    pub fn own_functions(problem: &Problem) -> Self {
        let mut ranged = Self::ranged(Kernel::OwnFunctions, problem);
        ranged.masks.retain(|slot| slot.custom);
        let scores = problem.scores();
        let scores = scores.iter().map(|s| (s.stage(), s.slot())).filter(|(_, slot)| slot.custom);
        Self {
            scores: scores.collect(),
            alibi: problem.attention().alibi.map(|alibi| alibi.align.slot()),
            capture: Capture::At(WeightsAt::AfterBias),
            factor: false,
            paged: false,
            ..ranged
        }
    }

    /// Plain f32 matrix product.
    pub fn matmul(a: Element, b: Element, c: Element) -> Self {
        Self {
            elements: vec![(Binding::Q, a), (Binding::V, b), (Binding::O, c)],
            ..Self::empty(Kernel::Matmul)
        }
    }

    /// y = x Wᵀ, and a vector added to each row; on matrix units where a tile is given.
    pub fn project([x, w, y]: [Element; 3], added: bool, matrix: Option<MatrixTile>) -> Self {
        Self {
            elements: vec![(Binding::Q, x), (Binding::K, w), (Binding::O, y)],
            added,
            matrix,
            ..Self::empty(Kernel::Project)
        }
    }

    /// New rows of k or v into a cache, perhaps turned on the way.
    pub fn cache_append(read: Element, write: Element, paged: bool, rotary: Option<bool>) -> Self {
        let preparation = Preparation {
            keys: rotary.is_some(),
            rotary: rotary.map(|interleaved| [interleaved, false]),
            at_end: false,
            normalized: false,
            head_scale: false,
            projected: false,
        };
        Self {
            elements: vec![(Binding::Q, read), (Binding::O, write)],
            preparation: Some(preparation),
            paged,
            ..Self::empty(Kernel::CacheAppend)
        }
    }

    /// Lengths after new rows were written.
    pub fn cache_advance() -> Self {
        Self::empty(Kernel::CacheAdvance)
    }

    /// A page of words to another place in the same buffer.
    pub fn cache_copy() -> Self {
        let words = Element { storage: Storage::Int8, native_f16: false, width: Width::Vec4 };
        Self { elements: vec![(Binding::O, words)], ..Self::empty(Kernel::CacheCopy) }
    }

    /// Results of one call over parts of its keys, joined.
    pub fn merge_states(read: Element, write: Element) -> Self {
        Self {
            elements: vec![(Binding::Q, read), (Binding::O, write)],
            lse: true,
            ..Self::empty(Kernel::MergeStates)
        }
    }

    /// The mean of f32 weights over heads.
    pub fn average() -> Self {
        let one = Element { width: Width::Single, ..Element::F32X4 };
        let elements = vec![(Binding::Q, one), (Binding::O, one)];
        Self { elements, ..Self::empty(Kernel::Average) }
    }

    /// Masks given as data narrow no range; stages 2 and 3 see their effect in the scores.
    fn without_data_masks(mut self) -> Self {
        let factor = self.factor && self.kernel != Kernel::StagedValue;
        self.masks.retain(|mask| by_position(mask) || (factor && *mask == local::SLOT));
        self.factor = factor;
        self.table = false;
        self
    }
}
