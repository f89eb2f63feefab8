//! `Plan`: what will be dispatched, computed without a GPU.

use std::fmt;

use crate::error::{Error, Rejection, Result};
use crate::feature::mask::Blocks;
use crate::feature::normalize::Normalizer;
use crate::kernel::{Binding, BlockTable, Element, KernelSpec, Resources, RowTile, Width};
use crate::plan::{BlockSize, Capabilities, Checks, Classify, Path, Policy, Prepare, tuning};
use crate::problem::{Attention, Operand, Problem};
use crate::tensor::{DType, Strides};

/// How one problem will run on one device.
///
/// Its [`Display`](fmt::Display) form explains the choice, the variants, the blocks and the memory.
///
/// ```
/// use heedful::{Attention, Capabilities, Path, Plan, Policy, Shape};
/// let problem = Attention::new(Shape::self_attention(1, 8, 512, 64)).validate()?;
/// let plan = Plan::new(&problem, &Capabilities::default(), &Policy::default())?;
/// assert_eq!(plan.path(), Path::Fused);
/// assert!(plan.to_string().contains("fused_forward/f32x4.f32x4"));
/// # Ok::<(), heedful::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    problem: Problem,
    prepare: Vec<Prepare>,
    schedule: Schedule,
    rejections: Vec<Rejection>,
}

/// The kernels of a plan and the blocks they run over.
#[derive(Debug, Clone, PartialEq)]
pub enum Schedule {
    /// One kernel.
    Fused(Box<FusedPlan>),
    /// Three kernels with scratch between them.
    Staged(Box<StagedPlan>),
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
    /// Rows of a workgroup.
    pub rows: RowTile,
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

impl Plan {
    /// Plans a problem for a device described by `caps`: the first candidate of the policy's path
    /// that can serve.
    ///
    /// # Errors
    /// Unsupported, with the reason each candidate was refused.
    pub fn new(problem: &Problem, caps: &Capabilities, policy: &Policy) -> Result<Self> {
        Self::choose(problem, caps, policy, &|_| None)
    }

    /// [`new`](Self::new), passing over kernels that `refused` gives a reason against.
    pub(crate) fn choose(
        problem: &Problem,
        caps: &Capabilities,
        policy: &Policy,
        refused: &dyn Fn(&KernelSpec) -> Option<Rejection>,
    ) -> Result<Self> {
        let mut rejections = Vec::new();
        let unsupported = |rejections| Error::unsupported(problem.to_string(), rejections);
        let mut prepare = Prepare::all(problem, caps).map_err(|x| unsupported(vec![x]))?;
        for step in &mut prepare {
            step.kernel.unchecked = policy.checks.are_off();
        }
        if let Some(rejection) = prepare.iter().find_map(|step| refused(&step.kernel)) {
            return Err(unsupported(vec![rejection]));
        }
        for candidate in Candidate::ALL {
            if policy.path != Path::Auto && policy.path != candidate.path() {
                continue;
            }
            let schedule = candidate.schedule(problem, caps, policy);
            match schedule.map(|schedule| schedule.compiled(policy.checks)) {
                Ok(schedule) => match schedule.kernels().into_iter().find_map(refused) {
                    Some(rejection) => rejections.push(rejection),
                    None => {
                        return Ok(Self {
                            problem: problem.clone(),
                            prepare,
                            schedule,
                            rejections,
                        });
                    }
                },
                Err(rejection) => rejections.push(rejection),
            }
        }
        Err(unsupported(rejections))
    }

    /// Plans the building of a block table from every mask of a problem that is data or a function.
    ///
    /// # Errors
    /// Unsupported where the masks cannot be bound in parts that are whole rows of blocks.
    pub(crate) fn for_blocks(
        problem: &Problem,
        caps: &Capabilities,
        blocks: Blocks,
    ) -> Result<Self> {
        let refuse = |rejection| Error::unsupported(problem.to_string(), vec![rejection]);
        let block =
            BlockSize::choose(problem, caps, &Policy::default(), Path::Fused).map_err(refuse)?;
        let rows = problem.attention().shape.seq_q;
        if block.rows < rows && !block.rows.is_multiple_of(blocks.rows) {
            let candidate = "classify".to_owned();
            let reason = format!(
                "{} rows are bound at a time, not a multiple of the blocks' {}",
                block.rows, blocks.rows
            );
            return Err(refuse(Rejection { candidate, reason }));
        }
        let kernel = KernelSpec::classify(problem, true);
        check_resources(&kernel, caps).map_err(refuse)?;
        let classify = Classify { kernel, blocks, scan: blocks.rows };
        let schedule = Schedule::Blocks(Box::new(BlocksPlan { classify, block }));
        let problem = problem.clone();
        Ok(Self { problem, prepare: Vec::new(), schedule, rejections: Vec::new() })
    }

    /// Plans only what happens to q and k before they meet.
    ///
    /// # Errors
    /// Unsupported where they are too large to be bound whole.
    pub(crate) fn for_rows(problem: &Problem, caps: &Capabilities) -> Result<Self> {
        let refuse = |rejection| Error::unsupported(problem.to_string(), vec![rejection]);
        let prepare = Prepare::all(problem, caps).map_err(refuse)?;
        let problem = problem.clone();
        Ok(Self { problem, prepare, schedule: Schedule::Rows, rejections: Vec::new() })
    }

    /// The problem that is planned.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// The chosen path.
    pub fn path(&self) -> Path {
        match self.schedule {
            // Block tables and prepared rows are there for the fused path.
            Schedule::Fused(_) | Schedule::Blocks(_) | Schedule::Rows => Path::Fused,
            Schedule::Staged(_) => Path::Staged,
        }
    }

    /// The kernels and their blocks.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Size of the blocks.
    pub fn block(&self) -> BlockSize {
        match &self.schedule {
            Schedule::Fused(fused) => fused.block,
            Schedule::Blocks(plan) => plan.block,
            Schedule::Rows => BlockSize { batch: 1, heads: 1, rows: 1, keys: 1 },
            Schedule::Staged(staged) => staged.block,
        }
    }

    /// Scratch memory one call uses, bytes; a caller's own workspace must be at least this large.
    pub fn workspace_bytes(&self) -> u64 {
        match &self.schedule {
            Schedule::Fused(_) | Schedule::Blocks(_) | Schedule::Rows => 0,
            Schedule::Staged(staged) => staged.scratch.bytes,
        }
    }

    /// The blocks of the call's block table, given or built by the plan, and the rows of a block that
    /// building it looks at.
    pub(crate) fn blocks(&self) -> Option<(Blocks, u32)> {
        self.schedule.classify().map(|x| (x.blocks, x.scan)).or(self
            .problem
            .attention()
            .blocks
            .map(|blocks| (blocks, blocks.rows)))
    }

    /// Words of the block table that the plan builds for itself.
    pub(crate) fn block_words(&self) -> u64 {
        let shape = self.problem.attention().shape;
        self.schedule.classify().map_or(0, |x| x.blocks.words(&shape))
    }

    /// Candidates that were considered before the chosen one, and why they were refused.
    pub fn rejections(&self) -> &[Rejection] {
        &self.rejections
    }

    /// The kernel variants that will run, in order.
    pub fn kernels(&self) -> Vec<&KernelSpec> {
        let prepare = self.prepare.iter().map(|step| &step.kernel);
        prepare.chain(self.schedule.kernels()).collect()
    }

    /// What is done to q and k first.
    pub fn prepare(&self) -> &[Prepare] {
        &self.prepare
    }

    /// Bytes of the f32 copies of q and k that a bound plan holds.
    pub fn prepared_bytes(&self) -> u64 {
        self.prepare.iter().map(|step| step.bytes).sum()
    }

    /// The same kernels for a smaller call of the same features: what the self-test runs.
    pub(crate) fn shrunk(&self, attention: &Attention, caps: &Capabilities) -> Result<Self> {
        let problem = attention.validate()?;
        let policy = Policy::default();
        let refuse = |rejection| Error::unsupported("the self-test", vec![rejection]);
        let block = BlockSize::choose(&problem, caps, &policy, self.path()).map_err(refuse)?;
        let mut schedule = self.schedule.clone();
        match &mut schedule {
            Schedule::Fused(fused) => {
                fused.block = block;
                if let Some(classify) = &mut fused.classify {
                    // The small call is large enough to have one as well.
                    if let Some(small) = Classify::new(&problem, &fused.rows, &block) {
                        *classify = Classify { kernel: classify.kernel.clone(), ..small };
                    }
                }
            }
            Schedule::Blocks(plan) => plan.block = block,
            Schedule::Rows => {}
            Schedule::Staged(staged) => {
                staged.block = block;
                staged.scratch = Scratch::new(&problem, &block, caps);
            }
        }
        let mut prepare = Prepare::all(&problem, caps).map_err(refuse)?;
        for (small, step) in prepare.iter_mut().zip(&self.prepare) {
            small.kernel = step.kernel.clone();
        }
        Ok(Self { problem, prepare, schedule, rejections: Vec::new() })
    }
}

impl Schedule {
    /// What builds a block table in the course of the call.
    fn classify(&self) -> Option<&Classify> {
        match self {
            Self::Fused(fused) => fused.classify.as_ref(),
            Self::Blocks(plan) => Some(&plan.classify),
            Self::Staged(_) | Self::Rows => None,
        }
    }

    /// The same with every kernel compiled with or without checks.
    fn compiled(mut self, checks: Checks) -> Self {
        let kernels: Vec<&mut KernelSpec> = match &mut self {
            Self::Fused(fused) => {
                let classify = fused.classify.iter_mut().map(|x| &mut x.kernel);
                classify.chain([&mut fused.kernel]).collect()
            }
            Self::Staged(x) => vec![&mut x.score, &mut x.normalize, &mut x.value],
            Self::Blocks(plan) => vec![&mut plan.classify.kernel],
            Self::Rows => Vec::new(),
        };
        for kernel in kernels {
            kernel.unchecked = checks.are_off();
        }
        self
    }

    pub(crate) fn kernels(&self) -> Vec<&KernelSpec> {
        match self {
            Self::Fused(fused) => {
                fused.classify.iter().map(|x| &x.kernel).chain([&fused.kernel]).collect()
            }
            Self::Staged(staged) => vec![&staged.score, &staged.normalize, &staged.value],
            Self::Blocks(plan) => vec![&plan.classify.kernel],
            Self::Rows => Vec::new(),
        }
    }
}

/// What the planner tries, fastest first.
#[derive(Debug, Clone, Copy)]
enum Candidate {
    FusedSubgroup,
    Fused,
    Staged,
}

impl Candidate {
    const ALL: [Self; 3] = [Self::FusedSubgroup, Self::Fused, Self::Staged];

    fn path(self) -> Path {
        match self {
            Self::FusedSubgroup | Self::Fused => Path::Fused,
            Self::Staged => Path::Staged,
        }
    }

    fn schedule(
        self,
        problem: &Problem,
        caps: &Capabilities,
        policy: &Policy,
    ) -> Result<Schedule, Rejection> {
        let fused = |subgroup| {
            let plan = FusedPlan::new(problem, caps, policy, subgroup)?;
            Ok(Schedule::Fused(Box::new(plan)))
        };
        match self {
            Self::FusedSubgroup => fused(true),
            Self::Fused => fused(false),
            Self::Staged => Ok(Schedule::Staged(Box::new(StagedPlan::new(problem, caps, policy)?))),
        }
    }
}

impl FusedPlan {
    fn new(
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
        let rows = tuning::row_tile(caps, &shape, subgroup);
        // Along edges an invocation has one row: its neighbours visit other keys.
        let rows = rows.map(|tile| if edges { RowTile { rows: 1, ..tile } } else { tile });
        let Some(rows) = rows else {
            let [low, high] = caps.subgroup_size;
            let has = if caps.subgroups { "has" } else { "lacks subgroups;" };
            return Err(refuse(&format!(
                "needs subgroups of at least 4 and a tuning row for this class; the device {has} {low} to {high}"
            )));
        };
        if policy.path == Path::Auto && tuning::spills(caps, &rows) {
            let registers = rows.rows * (rows.dim_qk + rows.dim_v);
            return Err(refuse(&format!(
                "{registers} f32 registers per invocation spill on this device; the fused path can be asked for"
            )));
        }
        let block = BlockSize::choose(problem, caps, policy, Path::Fused)?;
        let operands = [Operand::Q, Operand::K, Operand::V, Operand::O];
        let elements = operands.map(|operand| element_of(problem, operand, caps));
        let classify = Classify::new(problem, &rows, &block);
        let given = problem.attention().blocks.map(|_| BlockTable::Given);
        let table = classify.as_ref().map(|_| BlockTable::Classified).or(given);
        let kernel = KernelSpec::fused(problem, elements, rows, table);
        for spec in classify.iter().map(|x| &x.kernel).chain([&kernel]) {
            check_resources(spec, caps)?;
        }
        Ok(Self { classify, kernel, rows, block })
    }
}

impl StagedPlan {
    fn new(problem: &Problem, caps: &Capabilities, policy: &Policy) -> Result<Self, Rejection> {
        let block = BlockSize::choose(problem, caps, policy, Path::Staged)?;
        let a = problem.attention();
        if a.normalizer == Normalizer::Monotonic && block.rows < a.shape.seq_q {
            let reason = format!(
                "monotonic attention goes from row to row, but {} of {} rows fit a block",
                block.rows, a.shape.seq_q
            );
            return Err(Rejection { candidate: "staged".into(), reason });
        }
        let element = |operand| element_of(problem, operand, caps);
        let carry = block.splits_keys(problem);
        let plan = Self {
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
        for spec in [&plan.score, &plan.normalize, &plan.value] {
            check_resources(spec, caps)?;
        }
        Ok(plan)
    }
}

impl Scratch {
    fn new(problem: &Problem, block: &BlockSize, caps: &Capabilities) -> Self {
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
fn element_of(problem: &Problem, operand: Operand, caps: &Capabilities) -> Element {
    let a = problem.attention();
    let s = a.shape;
    let dtype = problem.read_dtype(operand);
    let (heads, seq, dim) = match operand {
        Operand::Q => (s.heads_q, s.seq_q, s.dim_qk),
        Operand::K => (s.heads_kv, s.seq_kv, s.dim_qk),
        Operand::V => (s.heads_kv, s.seq_kv, s.dim_v),
        _ => (s.heads_q, s.seq_q, s.dim_v),
    };
    let Strides { batch, head, row } = problem.read_strides(operand);
    let steps = [(batch, s.batch), (head, heads), (row, seq)];
    let aligned = steps.iter().all(|&(stride, n)| n <= 1 || stride % 4 == 0);
    let width = if aligned && dim % 4 == 0 { Width::Vec4 } else { Width::Single };
    Element { dtype, native_f16: dtype == DType::F16 && caps.shader_f16, width }
}

fn check_resources(spec: &KernelSpec, caps: &Capabilities) -> Result<(), Rejection> {
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

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BlockSize { batch, heads, rows, keys } = self.block();
        let s = self.problem.attention().shape;
        // Not by counting: a small limit and a large batch make more blocks than can be visited.
        let blocks: u64 = [(s.batch, batch), (s.heads_q, heads), (s.seq_q, rows)]
            .map(|(all, step)| u64::from(all.div_ceil(step.max(1))))
            .iter()
            .product();
        writeln!(f, "plan for {}", self.problem)?;
        for rejection in &self.rejections {
            writeln!(f, "  refused {}: {}", rejection.candidate, rejection.reason)?;
        }
        writeln!(f, "  path    {}", self.path())?;
        for spec in self.kernels() {
            let r = Resources::of(spec);
            writeln!(
                f,
                "  kernel  {spec}  ({} invocations, {} B workgroup memory, {} storage buffers)",
                r.invocations, r.workgroup_bytes, r.storage_buffers
            )?;
        }
        writeln!(
            f,
            "  blocks  {blocks} of at most {batch} sequences x {heads} heads x {rows} rows, {keys} keys at a time"
        )?;
        if !self.prepare.is_empty() {
            writeln!(f, "  copies  {} B of q and k in f32", self.prepared_bytes())?;
        }
        write!(f, "  scratch {} B", self.workspace_bytes())
    }
}

/// The problem operand behind a kernel binding; `None` for scratch, tables and parameters.
pub(crate) fn operand_of(binding: Binding) -> Option<Operand> {
    Some(match binding {
        Binding::Q => Operand::Q,
        Binding::K => Operand::K,
        Binding::V => Operand::V,
        Binding::O => Operand::O,
        Binding::Lse => Operand::Lse,
        Binding::Weights => Operand::Weights,
        Binding::Mask => Operand::Mask,
        Binding::Bias => Operand::Bias,
        _ => return None,
    })
}
