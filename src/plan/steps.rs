//! A plan's work as data: kernels in the order of their dispatches, what each goes over, and the scratch between them.

use crate::feature::mask::Blocks;
use crate::kernel::{Binding, Kernel, KernelSpec};
use crate::plan::{BlockSize, Capabilities, Checks, Classify, Path};
use crate::problem::{Operand, Problem};

/// One kernel of a plan.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Step {
    /// The kernel.
    pub kernel: KernelSpec,
    /// What its dispatches go over.
    pub over: Over,
}

/// What the dispatches of a step go over. All but copies are recorded block by block: every step of one block,
/// then those of the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Over {
    /// All rows of q or k, once, into an f32 copy of so many bytes.
    Copy {
        /// q or k.
        operand: Operand,
        /// Bytes of `[batch, heads, seq, dim_qk]`.
        bytes: u64,
    },
    /// The block table of a block's rows, unless a block before has built it.
    Table,
    /// A block's rows and all their keys.
    Block,
    /// A block's rows, once for each range of keys that is bound at a time; sums are carried from one to the next.
    KeyRanges,
    /// A block's rows without keys: what the steps before have left of them.
    Rows,
}

/// Shares that keys are split into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shares {
    /// How many.
    pub n: u32,
    /// Keys of one; 0 where each sequence's visible keys are shared out evenly.
    pub keys: u32,
}

/// A part of the scratch buffer, by what it is bound as: bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    /// What it is bound as.
    pub(crate) binding: Binding,
    /// Where it starts.
    pub(crate) start: u64,
    /// Its size.
    pub(crate) bytes: u64,
}

/// The steps of a path over the blocks of a call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Schedule {
    /// What the path is called.
    pub(crate) path: Path,
    /// The kernels, in the order of their dispatches.
    pub(crate) steps: Vec<Step>,
    /// Size of a block.
    pub(crate) block: BlockSize,
    /// The block table that a step builds, and rows of its blocks that are looked at.
    pub(crate) table: Option<(Blocks, u32)>,
    /// Shares that keys are split into, where they are.
    pub(crate) shares: Option<Shares>,
    /// Parts of the scratch; blocks reuse it in turn.
    pub(crate) scratch: Vec<Part>,
}

impl Schedule {
    /// One kernel over blocks, after the step that builds its block table if there is one.
    pub(super) fn one(
        path: Path,
        kernel: KernelSpec,
        classify: Option<Classify>,
        block: BlockSize,
    ) -> Self {
        let table = classify.as_ref().map(|x| (x.blocks, x.scan));
        let classify = classify.map(|x| Step { kernel: x.kernel, over: Over::Table });
        let steps = classify.into_iter().chain([Step { kernel, over: Over::Block }]).collect();
        Self { path, steps, block, table, shares: None, scratch: Vec::new() }
    }

    /// No attention, only what is done before it.
    pub(super) fn empty() -> Self {
        // Block tables and copies are there for the fused path.
        let block = BlockSize { batch: 1, heads: 1, rows: 1, keys: 1 };
        let (steps, scratch) = (Vec::new(), Vec::new());
        Self { path: Path::Fused, steps, block, table: None, shares: None, scratch }
    }

    /// Only the building of the block table.
    pub(super) fn table(classify: Classify, block: BlockSize) -> Self {
        let table = Some((classify.blocks, classify.scan));
        let steps = vec![Step { kernel: classify.kernel, over: Over::Table }];
        Self { steps, block, table, ..Self::empty() }
    }

    /// The first kernel of the attention itself; `None` where there is none.
    pub(crate) fn main(&self) -> Option<&KernelSpec> {
        self.steps.iter().find(|step| step.over != Over::Table).map(|step| &step.kernel)
    }

    /// The same with every kernel compiled with or without checks.
    pub(super) fn compiled(mut self, checks: Checks) -> Self {
        for step in &mut self.steps {
            step.kernel.build.unchecked = checks.are_off();
        }
        self
    }

    pub(crate) fn kernels(&self) -> Vec<&KernelSpec> {
        self.steps.iter().map(|step| &step.kernel).collect()
    }

    /// Bytes of scratch.
    pub(crate) fn scratch_bytes(&self) -> u64 {
        self.scratch.last().map_or(0, |part| part.start + part.bytes)
    }

    /// The same with the parts of the scratch that its kernels bind, one after another at aligned offsets.
    pub(super) fn laid_out(mut self, problem: &Problem, caps: &Capabilities) -> Self {
        let align = caps.storage_alignment.max(16);
        let bound = self.steps.iter().flat_map(|step| step.kernel.bindings());
        let mut bindings: Vec<Binding> = bound.map(|bound| bound.binding).collect();
        bindings.sort_unstable();
        bindings.dedup();
        let mut end = 0;
        let part = |binding: Binding| {
            let bytes = self.part_bytes(binding, problem)?.max(16);
            let start = u64::next_multiple_of(end, align);
            end = start + bytes;
            Some(Part { binding, start, bytes })
        };
        self.scratch = bindings.into_iter().filter_map(part).collect();
        self
    }

    /// Bytes of what kernels leave to each other; `None` for what is no scratch.
    fn part_bytes(&self, binding: Binding, problem: &Problem) -> Option<u64> {
        let s = problem.attention().shape;
        let rows = self.block.block_rows();
        let words_v = u64::from(s.dim_v.div_ceil(4));
        let states = s.rows() * self.shares.map_or(1, |shares| u64::from(shares.n));
        match binding {
            Binding::Scores => Some(rows * BlockSize::score_stride(problem) * 4),
            Binding::InverseSums => Some((rows * 4).next_multiple_of(16)),
            // A kernel that can carry binds it even where nothing is carried.
            Binding::Carry if !self.block.splits_keys(problem) => Some(0),
            Binding::Carry => Some(rows * words_v * 16),
            Binding::Partials => Some(states * words_v * 16),
            Binding::States => Some((states * 8).next_multiple_of(16)),
            Binding::Params | Binding::Aux | Binding::Angles => None,
            Binding::Q | Binding::K | Binding::V | Binding::O => None,
            Binding::Lse | Binding::Weights | Binding::Mask | Binding::Bias => None,
            Binding::PartsLse | Binding::Projection => None,
            Binding::Grads | Binding::Entries | Binding::RowSums | Binding::CenterSums => None,
            Binding::DLse | Binding::DWeights | Binding::DTable | Binding::DO | Binding::DV => None,
        }
    }

    /// The same kernels over a smaller call of the same features.
    pub(super) fn shrunk(
        mut self,
        problem: &Problem,
        block: BlockSize,
        caps: &Capabilities,
    ) -> Self {
        if self.steps.is_empty() {
            return self;
        }
        self.block = block;
        let keys = self.main().and_then(|kernel| {
            let split = kernel.split_tile().map(|tile| tile.keys);
            split.or_else(|| kernel.block_tile().map(|tile| tile.keys))
        });
        if let (Some(shares), Some(keys)) = (&mut self.shares, keys) {
            // Shares of two tiles, the last of them less; or of a fixed size.
            shares.n = problem.attention().shape.seq_kv.div_ceil(2 * keys).max(2);
        }
        // The small call is large enough to have a table as well.
        let rows = self.main().map(KernelSpec::group_rows);
        let small = rows.and_then(|rows| Classify::new(problem, rows, &block));
        if let (Some(table), Some(small)) = (&mut self.table, small) {
            *table = (small.blocks, small.scan);
        }
        self.laid_out(problem, caps)
    }

    /// What it is called among candidates: its main kernel.
    pub(super) fn name(&self) -> &'static str {
        self.main().map_or(Kernel::Classify.name(), |kernel| kernel.kernel.name())
    }
}
