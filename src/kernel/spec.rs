//! `KernelSpec`: everything that changes a kernel's code, and nothing that does not.
//!
//! Lengths, strides, scales and offsets are parameters; what is here decides text, types and bindings.
//! Its display form, `staged_score/f16px4.f16px4/scale+softcap/causal+window@top_left`, is log name,
//! pipeline label and test name.

use super::bindings::{Access, Binding, BindingKind};
use super::element::{Element, RowTile, SplitTile, Width};
use super::schedule::Kernel;
use crate::feature::Slot;
use crate::feature::align::Align;
use crate::feature::inner::sum;
use crate::feature::mask::{causal, chunked, dense, edges, local, neighborhood, segments, window};
use crate::feature::normalize::{self, Normalizer};
use crate::feature::score::{Stage, bias, relative};
use crate::problem::{Operand, Problem, WeightsAt};
use crate::tensor::Storage;

/// Rows and columns of the register-blocked tile (`shaders/common/tile.wgsl`).
pub const TILE: u32 = 64;

/// Which scores a kernel writes to the `weights` output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Capture {
    /// None.
    Nothing,
    /// The given point.
    At(WeightsAt),
}

/// Where the block table of a kernel comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BlockTable {
    /// From the caller: a mask of its own that also says where no test is needed.
    Given,
    /// From the masks given as data, by a `classify` dispatch: where to look, and where no test is
    /// needed.
    Classified,
}

/// What a `prepare` kernel does to each row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Preparation {
    /// Whether the rows are keys.
    pub keys: bool,
    /// Rotation: whether pairs are interleaved, and whether positions come from a table.
    pub rotary: Option<[bool; 2]>,
    /// Whether positions count to the end of the keys.
    pub at_end: bool,
    /// Brought to length 1.
    pub normalized: bool,
    /// And multiplied with a factor per head.
    pub head_scale: bool,
    /// Multiplied with a matrix.
    pub projected: bool,
}

/// Everything that changes a kernel's code: the key of the pipeline cache.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KernelSpec {
    /// The schedule.
    pub kernel: Kernel,
    /// Operands with an element type: q, k, v are loaded, o is stored.
    pub elements: Vec<(Binding, Element)>,
    /// The inner loop of scores.
    pub inner: Vec<Slot>,
    /// The normaliser.
    pub normalize: Option<Slot>,
    /// Score modifiers in order, each with its stage.
    pub scores: Vec<(Stage, Slot)>,
    /// Masks.
    pub masks: Vec<Slot>,
    /// Where the diagonal is, when a mask needs it.
    pub diagonal: Option<Slot>,
    /// Where ALiBi's distance 0 is.
    pub alibi: Option<Slot>,
    /// Whether key lengths come from a table.
    pub kv_lengths: bool,
    /// Whether query lengths come from a table.
    pub q_lengths: bool,
    /// Whether edges of a graph are in tables.
    pub edges: bool,
    /// Whether weights are multiplied with a factor of their place after they are normalised.
    pub factor: bool,
    /// Whether sequences are packed one after another.
    pub packed: bool,
    /// Whether keys are in pages.
    pub paged: bool,
    /// Whether functions of the caller's own read a table.
    pub table: bool,
    /// Whether rows start with a sink.
    pub sink: bool,
    /// Whether lse is written.
    pub lse: bool,
    /// Scores that are written out.
    pub capture: Capture,
    /// Whether partial sums of o are carried between dispatches.
    pub carry: bool,
    /// Where the block table comes from, if there is one.
    pub blocks: Option<BlockTable>,
    /// What is done to rows of q or k.
    pub preparation: Option<Preparation>,
    /// Whether a vector is added to each row.
    pub added: bool,
    /// Whether it is compiled without run-time checks.
    pub unchecked: bool,
    /// Shape of the fused row kernels.
    pub rows: Option<RowTile>,
    /// Shape of the split kernel.
    pub split: Option<SplitTile>,
}

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
            rows: None,
            split: None,
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
        let mut ranged = Self::ranged(kernel, problem);
        ranged.masks.retain(|mask| *mask != edges::SLOT);
        let names = [Binding::Q, Binding::K, Binding::V, Binding::O];
        Self {
            elements: names.into_iter().zip(elements).collect(),
            inner: a.inner.slots(),
            normalize: Some(a.normalizer.slot()),
            scores: problem.scores().iter().map(|s| (s.stage(), s.slot())).collect(),
            alibi: a.alibi.map(|alibi| alibi.align.slot()),
            sink: a.sinks,
            lse: a.lse,
            blocks,
            edges: a.edges.is_some(),
            rows: Some(rows),
            ..ranged
        }
    }

    /// Shares of the keys of a few rows.
    pub fn split_forward(problem: &Problem, elements: [Element; 3], tile: SplitTile) -> Self {
        let a = problem.attention();
        Self {
            elements: [Binding::Q, Binding::K, Binding::V].into_iter().zip(elements).collect(),
            inner: a.inner.slots(),
            normalize: Some(a.normalizer.slot()),
            scores: problem.scores().iter().map(|s| (s.stage(), s.slot())).collect(),
            alibi: a.alibi.map(|alibi| alibi.align.slot()),
            split: Some(tile),
            ..Self::ranged(Kernel::SplitForward, problem)
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

    /// Head dimensions that a kernel is unrolled for, 0 where it is not.
    pub(super) fn dims(&self) -> [u32; 2] {
        let rows = self.rows.map(|x| [x.dim_qk, x.dim_v]);
        rows.or(self.split.map(|x| [x.dim_qk, x.dim_v])).unwrap_or_default()
    }

    /// Plain f32 matrix product.
    pub fn matmul(a: Element, b: Element, c: Element) -> Self {
        Self {
            elements: vec![(Binding::Q, a), (Binding::V, b), (Binding::O, c)],
            ..Self::empty(Kernel::Matmul)
        }
    }

    /// y = x Wᵀ, and a vector added to each row.
    pub fn project(x: Element, w: Element, y: Element, added: bool) -> Self {
        Self {
            elements: vec![(Binding::Q, x), (Binding::K, w), (Binding::O, y)],
            added,
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

    /// Whether any table is read from `aux`.
    pub fn needs_aux(&self) -> bool {
        let per_batch = Some(Align::PerBatch.slot());
        self.kv_lengths
            || self.q_lengths
            || self.sink
            || self.table
            || self.packed
            || self.paged
            || matches!(self.kernel, Kernel::CacheAppend | Kernel::CacheAdvance)
            || self.edges
            || self.preparation.is_some_and(|x| x.rotary.is_some() || x.head_scale || x.projected)
            || self.scores.iter().any(|(_, slot)| *slot == relative::SLOT)
            || self.blocks.is_some()
            || self.masks.contains(&segments::SLOT)
            || self.masks.contains(&local::SLOT)
            || self.is_additive()
            || self.alibi.is_some()
            || self.diagonal == per_batch
    }

    /// Whether some entry of the bias may be −∞.
    pub(crate) fn bias_may_mask(&self) -> bool {
        self.scores.iter().any(|(_, slot)| *slot == bias::SLOT)
    }

    /// Whether scores are additive.
    pub(crate) fn is_additive(&self) -> bool {
        self.inner.contains(&sum::SLOT)
    }

    /// Whether each score has its weight by itself.
    pub(crate) fn is_each(&self) -> bool {
        use normalize::{raw, relu, sigmoid};
        self.normalize
            .as_ref()
            .is_some_and(|slot| [relu::SLOT, sigmoid::SLOT, raw::SLOT].contains(slot))
    }

    /// Whether one key takes all weight.
    pub(crate) fn is_hard(&self) -> bool {
        self.normalize == Some(normalize::hard::SLOT)
    }

    /// Whether a visited key may be hidden from a row.
    pub(crate) fn is_masked(&self) -> bool {
        // Pages that do not exist are stepped over where keys are taken one by one.
        let pages = self.paged && self.kernel == Kernel::SplitForward;
        !self.masks.is_empty() || self.edges || self.bias_may_mask() || pages
    }

    /// Whether the module needs native f16.
    pub fn needs_f16(&self) -> bool {
        self.elements.iter().any(|(_, element)| element.load().needs_f16)
    }

    /// The resources of the kernel, ascending.
    pub fn bindings(&self) -> Vec<BindingKind> {
        use Access::{Read, ReadWrite};
        let weights = self.capture != Capture::Nothing;
        let mut list = vec![(Binding::Params, Read)];
        list.extend(
            self.elements.iter().map(|&(binding, _)| {
                (binding, if binding == Binding::O { ReadWrite } else { Read })
            }),
        );
        list.extend(self.lse.then_some((Binding::Lse, ReadWrite)));
        list.extend(weights.then_some((Binding::Weights, ReadWrite)));
        list.extend(self.masks.contains(&dense::SLOT).then_some((Binding::Mask, Read)));
        let bias = self.bias_may_mask() || self.added;
        list.extend(bias.then_some((Binding::Bias, Read)));
        let writes_aux = matches!(self.kernel, Kernel::Classify | Kernel::CacheAdvance);
        let aux = if writes_aux { ReadWrite } else { Read };
        list.extend(self.needs_aux().then_some((Binding::Aux, aux)));
        match self.kernel {
            Kernel::StagedScore => list.push((Binding::Scores, ReadWrite)),
            Kernel::StagedNormalize | Kernel::StagedThreshold | Kernel::StagedMonotonic => {
                list.push((Binding::Scores, ReadWrite));
                list.push((Binding::InverseSums, ReadWrite));
            }
            Kernel::StagedValue => {
                // Read only, but declared writable: all scratch may share one buffer, and a buffer
                // cannot be bound both ways in one dispatch.
                list.push((Binding::Scores, ReadWrite));
                list.push((Binding::InverseSums, ReadWrite));
            }
            Kernel::SplitForward | Kernel::SplitMerge => {
                list.push((Binding::Partials, ReadWrite));
                list.push((Binding::States, ReadWrite));
            }
            Kernel::CacheAppend => {
                let turned = self.preparation.is_some_and(|x| x.rotary.is_some());
                list.extend(turned.then_some((Binding::Angles, Read)));
            }
            // The lse of each part.
            Kernel::MergeStates => list.push((Binding::Bias, Read)),
            Kernel::FusedForward
            | Kernel::FusedForwardSubgroup
            | Kernel::EdgeForward
            | Kernel::CacheAdvance
            | Kernel::CacheCopy
            | Kernel::Classify
            | Kernel::Prepare
            | Kernel::Project
            | Kernel::Average
            | Kernel::Matmul => {}
        }
        list.extend(self.carry.then_some((Binding::Carry, ReadWrite)));
        list.sort_unstable_by_key(|(binding, _)| *binding);
        list.into_iter().map(|(binding, access)| BindingKind { binding, access }).collect()
    }

    /// The slots whose files the kernel needs, in composition order.
    pub(crate) fn slots(&self) -> Vec<Slot> {
        let mut slots = Vec::new();
        for (binding, element) in &self.elements {
            let is_output = *binding == Binding::O;
            if is_output && element.is_quantised() {
                continue;
            }
            slots.push(if is_output { element.store().slot } else { element.load().slot });
        }
        slots.extend(self.diagonal.clone());
        slots.extend(self.alibi.clone());
        slots.extend(self.scores.iter().map(|(_, slot)| slot.clone()));
        slots.extend(self.masks.iter().cloned());
        slots.extend(self.inner.iter().cloned());
        slots.extend(self.normalize.clone());
        slots.extend(self.sink.then_some(normalize::sink::SLOT));
        let mut seen = std::collections::HashSet::new();
        slots.retain(|slot| seen.insert(slot.clone()));
        slots
    }
}

/// Whether a mask is decided by positions alone, so that it narrows key ranges.
pub(super) fn by_position(mask: &Slot) -> bool {
    [causal::SLOT, window::SLOT, chunked::SLOT, neighborhood::SLOT].contains(mask)
}
