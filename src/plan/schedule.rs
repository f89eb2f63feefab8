//! Schedules: the kernels of a plan, the blocks they run over, their scratch.

use crate::error::{Rejection, Result};
use crate::feature::mask::Window;
use crate::feature::normalize::Normalizer;
use crate::kernel::{BlockTable, BlockTile, Element, KernelSpec, Resources, RowTile, Width};
use crate::plan::fit::fitted;
use crate::plan::{
    BlockSize, Capabilities, Checks, Classify, MatrixPlan, Path, Policy, SplitPlan, tuning,
};
use crate::problem::{Operand, Problem};
use crate::tensor::{Storage, Strides};

/// The kernels of a plan and the blocks they run over.
#[derive(Debug, Clone, PartialEq)]
pub enum Schedule {
    /// One kernel.
    Fused(Box<FusedPlan>),
    /// One kernel on matrix units.
    Matrix(Box<MatrixPlan>),
    /// Three kernels with scratch between them.
    Staged(Box<StagedPlan>),
    /// Two kernels, with partial results between them.
    Split(Box<SplitPlan>),
    /// No attention, only the block table for it.
    Blocks(Box<BlocksPlan>),
    /// No attention, only q and k as they would meet.
    Rows,
}

/// Building a block table: one kernel over blocks of rows.
#[derive(Debug, Clone, PartialEq)]
pub struct BlocksPlan {
    /// The kernel and the table's blocks.
    pub classify: Classify,
    /// Size of a block of the call.
    pub block: BlockSize,
}

/// The fused path: one kernel over blocks of rows.
#[derive(Debug, Clone, PartialEq)]
pub struct FusedPlan {
    /// What builds the block table first, where masks are data and large.
    pub classify: Option<Classify>,
    /// The kernel.
    pub kernel: KernelSpec,
    /// Query rows of a workgroup.
    pub group_rows: u32,
    /// Size of a block.
    pub block: BlockSize,
}

/// The staged path: three kernels over blocks of rows.
#[derive(Debug, Clone, PartialEq)]
pub struct StagedPlan {
    /// Stage 1.
    pub score: KernelSpec,
    /// Stage 2.
    pub normalize: KernelSpec,
    /// Stage 3.
    pub value: KernelSpec,
    /// Size of a block.
    pub block: BlockSize,
    /// Scratch of one block; blocks reuse it in turn.
    pub scratch: Scratch,
}

/// Parts of the scratch buffer: byte offsets and sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scratch {
    /// Scores of the block.
    pub scores: [u64; 2],
    /// Reciprocals of the row sums.
    pub inverse_sums: [u64; 2],
    /// Partial sums of o, where keys are split.
    pub carry: [u64; 2],
    /// Size of the whole.
    pub bytes: u64,
}

impl Schedule {
    /// What builds a block table in the course of the call.
    pub(super) fn classify(&self) -> Option<&Classify> {
        match self {
            Self::Fused(fused) => fused.classify.as_ref(),
            Self::Blocks(plan) => Some(&plan.classify),
            Self::Staged(_) | Self::Split(_) | Self::Matrix(_) | Self::Rows => None,
        }
    }

    /// The same with every kernel compiled with or without checks.
    pub(super) fn compiled(mut self, checks: Checks) -> Self {
        let kernels: Vec<&mut KernelSpec> = match &mut self {
            Self::Fused(fused) => {
                let classify = fused.classify.iter_mut().map(|x| &mut x.kernel);
                classify.chain([&mut fused.kernel]).collect()
            }
            Self::Staged(x) => vec![&mut x.score, &mut x.normalize, &mut x.value],
            Self::Split(x) => vec![&mut x.forward, &mut x.merge],
            Self::Matrix(x) => vec![&mut x.kernel],
            Self::Blocks(plan) => vec![&mut plan.classify.kernel],
            Self::Rows => Vec::new(),
        };
        for kernel in kernels {
            kernel.unchecked = checks.are_off();
        }
        self
    }

    /// Why another path is faster here, where one is known to be.
    pub(super) fn slower(&self, problem: &Problem, caps: &Capabilities) -> Option<Rejection> {
        let (kernel, reason) = match self {
            Self::Split(x) => {
                let shape = &problem.attention().shape;
                (x.forward.kernel, tuning::split_is_slower(caps, shape, &x.tile)?)
            }
            Self::Fused(x) => {
                let rows = x.kernel.rows.and_then(|rows| tuning::rows_are_slower(caps, &rows));
                let tile = x.kernel.tile.and_then(|_| tuning::tile_is_slower(caps));
                (x.kernel.kernel, rows.or(tile)?)
            }
            _ => return None,
        };
        Some(Rejection { candidate: kernel.name().into(), reason })
    }

    pub(crate) fn kernels(&self) -> Vec<&KernelSpec> {
        match self {
            Self::Fused(fused) => {
                fused.classify.iter().map(|x| &x.kernel).chain([&fused.kernel]).collect()
            }
            Self::Staged(staged) => vec![&staged.score, &staged.normalize, &staged.value],
            Self::Split(x) => vec![&x.forward, &x.merge],
            Self::Matrix(x) => vec![&x.kernel],
            Self::Blocks(plan) => vec![&plan.classify.kernel],
            Self::Rows => Vec::new(),
        }
    }
}

impl FusedPlan {
    pub(super) fn new(
        problem: &Problem,
        caps: &Capabilities,
        policy: &Policy,
        subgroup: bool,
    ) -> Result<Self, Rejection> {
        let name = if subgroup { "fused_forward_subgroup" } else { "fused_forward" };
        let refuse = |reason: &str| Rejection { candidate: name.into(), reason: reason.into() };
        if problem.attention().weights.is_some() {
            return Err(refuse("scores and weights are written by the staged path only"));
        }
        if problem.attention().normalizer.needs_row() {
            let name = problem.attention().normalizer.name();
            return Err(refuse(&format!("{name} needs the whole row of scores")));
        }
        let shape = problem.attention().shape;
        let edges = problem.attention().edges.is_some();
        if edges && subgroup {
            return Err(refuse("rows of a graph have keys of their own to fetch"));
        }
        let rows = tuning::row_tile(caps, &shape, subgroup, policy.tuning.as_deref());
        // Along edges an invocation has one row: its neighbours visit other keys.
        let rows =
            rows.map(|tile| if edges { RowTile { rows: 1, wide: false, ..tile } } else { tile });
        let Some(rows) = rows else {
            return Err(refuse(&no_row_tile(caps, subgroup)));
        };
        let iterations = iterations(problem, &rows);
        if iterations > u64::from(caps.max_loop_iterations) {
            return Err(refuse(&too_many(iterations, caps)));
        }
        let block = BlockSize::choose(problem, caps, policy, Path::Fused)?;
        let operands = [Operand::Q, Operand::K, Operand::V, Operand::O];
        let elements = operands.map(|operand| element_of(problem, operand, caps));
        let kernel = |table| KernelSpec::fused(problem, elements, rows, table);
        Self::over(problem, caps, rows.group_rows(), block, kernel)
    }

    /// The kernel that is a tile of rows and keys.
    pub(super) fn tile(
        problem: &Problem,
        caps: &Capabilities,
        policy: &Policy,
    ) -> Result<Self, Rejection> {
        let a = problem.attention();
        let refuse = |reason: String| Rejection { candidate: "fused_forward_tile".into(), reason };
        if a.weights.is_some() {
            return Err(refuse("scores and weights are written by the staged path only".into()));
        }
        if a.normalizer.needs_row() || a.normalizer.takes_one() {
            let name = a.normalizer.name();
            return Err(refuse(format!("{name} is not a weighted sum in one pass")));
        }
        if a.inner.is_sum() {
            return Err(refuse("additive scores are made by the fused and staged paths".into()));
        }
        if a.edges.is_some() {
            return Err(refuse("rows of a graph have keys of their own to visit".into()));
        }
        let selects = !problem.masks().is_empty() || a.bias.is_some();
        let tile = tuning::block_tile(caps, &a.shape, selects, policy.tuning.as_deref());
        let Some(tile) = tile else {
            let [qk, v] = [a.shape.dim_qk, a.shape.dim_v];
            return Err(refuse(format!(
                "no tile for head dimensions {qk} and {v} fits {} invocations and {} B of workgroup memory",
                caps.max_invocations, caps.max_workgroup_bytes
            )));
        };
        let iterations = tile_iterations(problem, &tile);
        if iterations > u64::from(caps.max_loop_iterations) {
            return Err(refuse(too_many(iterations, caps)));
        }
        let block = BlockSize::choose(problem, caps, policy, Path::Fused)?;
        let operands = [Operand::Q, Operand::K, Operand::V, Operand::O];
        let elements = operands.map(|operand| element_of(problem, operand, caps));
        let kernel = |table| KernelSpec::fused_tile(problem, elements, tile, table);
        Self::over(problem, caps, tile.rows(), block, kernel)
    }

    /// A kernel over blocks, with the block table that helps it.
    fn over(
        problem: &Problem,
        caps: &Capabilities,
        group_rows: u32,
        block: BlockSize,
        kernel: impl Fn(Option<BlockTable>) -> KernelSpec,
    ) -> Result<Self, Rejection> {
        let classify = Classify::new(problem, group_rows, &block);
        let given = problem.attention().blocks.map(|_| BlockTable::Given);
        let kernel = kernel(classify.as_ref().map(|_| BlockTable::Classified).or(given));
        let block_words =
            classify.as_ref().map_or(0, |x| x.blocks.words(&problem.attention().shape));
        let kernel = fitted(kernel, problem, block_words, caps);
        for spec in classify.iter().map(|x| &x.kernel).chain([&kernel]) {
            check_resources(spec, caps)?;
        }
        Ok(Self { classify, kernel, group_rows, block })
    }
}

/// What keeps a device from having a row tile: [`tuning::row_tile`] looks at these in turn.
fn no_row_tile(caps: &Capabilities, subgroup: bool) -> String {
    let [low, high] = caps.subgroup_size;
    match (subgroup, caps.subgroups) {
        (true, false) => "needs subgroup operations, which the device lacks".into(),
        (true, true) if low < 4 => {
            format!("needs subgroups of at least 4, those of the device have {low} to {high}")
        }
        _ => format!("no tile is tuned for it on devices of type {}", caps.device_type),
    }
}

impl StagedPlan {
    pub(super) fn new(
        problem: &Problem,
        caps: &Capabilities,
        policy: &Policy,
        matrix: bool,
    ) -> Result<Self, Rejection> {
        let a = problem.attention();
        let tile = matrix.then(|| MatrixPlan::square(problem, caps)).transpose()?;
        let quantised = a.kv_storage.is_some_and(|storage| storage.dtype().is_none());
        if a.paged.is_some() || quantised {
            let reason = "keys in pages or with scales are read by the fused and split paths only";
            return Err(Rejection { candidate: "staged".into(), reason: reason.into() });
        }
        let block = BlockSize::choose(problem, caps, policy, Path::Staged)?;
        if a.normalizer == Normalizer::Monotonic && block.rows < a.shape.seq_q {
            let reason = format!(
                "monotonic attention goes from row to row, but {} of {} rows fit a block",
                block.rows, a.shape.seq_q
            );
            return Err(Rejection { candidate: "staged".into(), reason });
        }
        let element = |operand| element_of(problem, operand, caps);
        let carry = block.splits_keys(problem);
        let mut plan = Self {
            score: KernelSpec::staged_score(problem, element(Operand::Q), element(Operand::K)),
            normalize: KernelSpec::staged_normalize(problem),
            value: KernelSpec::staged_value(
                problem,
                element(Operand::V),
                element(Operand::O),
                carry,
            ),
            block,
            scratch: Scratch::new(problem, &block, caps),
        };
        (plan.score.matrix, plan.value.matrix) = (tile, tile);
        for spec in [&mut plan.score, &mut plan.normalize, &mut plan.value] {
            *spec = fitted(spec.clone(), problem, 0, caps);
        }
        for spec in [&plan.score, &plan.normalize, &plan.value] {
            check_resources(spec, caps)?;
        }
        Ok(plan)
    }
}

impl Scratch {
    pub(super) fn new(problem: &Problem, block: &BlockSize, caps: &Capabilities) -> Self {
        let align = caps.storage_alignment.max(16);
        let rows = block.block_rows();
        let dim_v = u64::from(problem.attention().shape.dim_v).next_multiple_of(4);
        let carry = if block.splits_keys(problem) { rows * dim_v * 4 } else { 0 };
        let mut end = 0_u64;
        let mut part = |bytes: u64| {
            let start = end.next_multiple_of(align);
            end = start + bytes;
            [start, bytes]
        };
        let scores = part(rows * BlockSize::score_stride(problem) * 4);
        let inverse_sums = part((rows * 4).next_multiple_of(16));
        // Never empty, since a kernel that can carry binds it even where nothing is carried.
        let carry = part(carry.max(16));
        Self { scores, inverse_sums, carry, bytes: end.next_multiple_of(16) }
    }
}

/// How an operand is read or written: four elements at a time when its sizes and strides allow it
/// (a view's byte offset is seen only when tensors are bound).
pub(super) fn element_of(problem: &Problem, operand: Operand, caps: &Capabilities) -> Element {
    let a = problem.attention();
    let s = a.shape;
    let storage = problem.read_storage(operand);
    if storage.dtype().is_none() {
        return Element { storage, native_f16: false, width: Width::Vec4 };
    }
    let (heads, seq) = (problem.heads(operand), problem.seq(operand));
    // q may have other channels where it is projected first.
    let dim = if operand == Operand::Q { s.dim_qk } else { problem.dim(operand) };
    let Strides { batch, head, row } = problem.read_strides(operand);
    let steps = [(batch, s.batch), (head, heads), (row, seq)];
    let aligned = steps.iter().all(|&(stride, n)| n <= 1 || stride % 4 == 0);
    let width = if aligned && dim % 4 == 0 { Width::Vec4 } else { Width::Single };
    Element { storage, native_f16: storage == Storage::F16 && caps.shader_f16, width }
}

/// Iterations of a fused kernel's loops over the keys of one row: one a key, and three for each stretch of keys
/// that lie side by side.
fn iterations(problem: &Problem, tile: &RowTile) -> u64 {
    let a = problem.attention();
    let keys = keys_of_rows(problem, tile.rows * tile.lanes);
    let pages = a.paged.map_or(1, |paged| keys.div_ceil(paged.page_size.max(1)));
    let blocks = a.blocks.map_or(1, |blocks| keys.div_ceil(blocks.keys.max(1)));
    u64::from(keys) + 3 * u64::from(pages) + 3 * u64::from(blocks)
}

/// Iterations of the tile kernel's loops.
fn tile_iterations(problem: &Problem, tile: &BlockTile) -> u64 {
    let keys = keys_of_rows(problem, tile.rows()).saturating_add(tile.keys);
    u64::from(keys.div_ceil(tile.keys)) * u64::from(tile.iterations())
}

/// Keys that some of neighbouring rows may see.
fn keys_of_rows(problem: &Problem, rows: u32) -> u32 {
    let a = problem.attention();
    let mut keys = a.shape.seq_kv;
    if let Some((Window { left: Some(left), right: Some(right) }, _)) = a.window {
        keys = keys.min(left.saturating_add(right).saturating_add(rows));
    }
    if let Some((size, _)) = a.chunked {
        keys = keys.min(size.saturating_add(rows));
    }
    keys
}

fn too_many(iterations: u64, caps: &Capabilities) -> String {
    let most = caps.max_loop_iterations;
    format!("{iterations} iterations over keys, this driver ends loops after {most}")
}

pub(super) fn check_resources(spec: &KernelSpec, caps: &Capabilities) -> Result<(), Rejection> {
    let needs = Resources::of(spec);
    let checks = [
        ("invocations", needs.invocations, caps.max_invocations),
        ("B of workgroup memory", needs.workgroup_bytes, caps.max_workgroup_bytes),
        ("storage buffers", needs.storage_buffers, caps.max_storage_buffers),
    ];
    for (what, needed, available) in checks {
        if needed > available {
            let reason = format!("needs {needed} {what}, the device has {available}");
            return Err(Rejection { candidate: spec.to_string(), reason });
        }
    }
    Ok(())
}
