//! `Plan`: what will be dispatched, computed without a GPU.

use std::fmt;

use crate::error::{Error, Rejection, Result};
use crate::feature::mask::Blocks;
use crate::kernel::{KernelSpec, Resources};
use crate::plan::schedule::check_resources;
use crate::plan::{
    BlockSize, BlocksPlan, Capabilities, Classify, FusedPlan, MatrixPlan, Path, Policy, Prepare,
    Schedule, Scratch, SplitPlan, StagedPlan, tuning,
};
use crate::problem::{Attention, Problem};

/// How one problem will run on one device.
///
/// Its [`Display`](fmt::Display) form explains the choice, the variants, the blocks and the memory.
///
/// ```
/// use heedful::{Attention, Capabilities, Path, Plan, Policy, Shape};
/// let problem = Attention::new(Shape::self_attention(1, 8, 512, 64)).validate()?;
/// let plan = Plan::new(&problem, &Capabilities::default(), &Policy::default())?;
/// assert_eq!(plan.path(), Path::FusedTile);
/// assert!(plan.to_string().contains("fused_forward_tile/f32x4.f32x4"));
/// # Ok::<(), heedful::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    problem: Problem,
    prepare: Vec<Prepare>,
    schedule: Schedule,
    rejections: Vec<Rejection>,
    passed_over: Vec<Rejection>,
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

    /// [`new`](Self::new), passing over candidates to whose kernels together `refused` has an objection.
    pub(crate) fn choose(
        problem: &Problem,
        caps: &Capabilities,
        policy: &Policy,
        refused: &dyn Fn(&[&KernelSpec]) -> Option<Rejection>,
    ) -> Result<Self> {
        let native = policy.native_f16.unwrap_or_else(|| tuning::prefers_native_f16(caps));
        let caps = &Capabilities { shader_f16: caps.shader_f16 && native, ..caps.clone() };
        let mut rejections = Vec::new();
        let unsupported = |rejections| Error::unsupported(problem.to_string(), rejections);
        let mut prepare = Prepare::all(problem, caps).map_err(|x| unsupported(vec![x]))?;
        for step in &mut prepare {
            step.kernel.unchecked = policy.checks.are_off();
        }
        let prepared: Vec<&KernelSpec> = prepare.iter().map(|step| &step.kernel).collect();
        if let Some(rejection) = refused(&prepared) {
            return Err(unsupported(vec![rejection]));
        }
        let planned = |schedule, rejections, passed_over| {
            let (problem, prepare) = (problem.clone(), prepare.clone());
            Self { problem, prepare, schedule, rejections, passed_over }
        };
        let (mut passed_over, mut spare) = (Vec::new(), None);
        for candidate in Candidate::ALL {
            let path = candidate.path();
            let wanted = match policy.path {
                Path::Auto => policy.matrix_units || !path.is_matrix(),
                given => given == path,
            };
            if !wanted {
                continue;
            }
            let schedule = candidate.schedule(problem, caps, policy);
            match schedule.map(|schedule| schedule.compiled(policy.checks)) {
                Ok(schedule) => match refused(&[&prepared, &*schedule.kernels()].concat()) {
                    Some(rejection) => rejections.push(rejection),
                    None => {
                        match schedule.slower(problem, caps).filter(|_| policy.path == Path::Auto) {
                            Some(slower) => {
                                passed_over.push(slower);
                                spare.get_or_insert(schedule);
                            }
                            None => return Ok(planned(schedule, rejections, passed_over)),
                        }
                    }
                },
                Err(rejection) => rejections.push(rejection),
            }
        }
        // Slower than others, but there are none.
        match spare {
            Some(schedule) => Ok(planned(schedule, rejections, Vec::new())),
            None => Err(unsupported(rejections)),
        }
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
        Ok(Self {
            problem,
            prepare: Vec::new(),
            schedule,
            rejections: Vec::new(),
            passed_over: Vec::new(),
        })
    }

    /// Plans only what happens to q and k before they meet.
    ///
    /// # Errors
    /// Unsupported where they are too large to be bound whole.
    pub(crate) fn for_rows(problem: &Problem, caps: &Capabilities) -> Result<Self> {
        let refuse = |rejection| Error::unsupported(problem.to_string(), vec![rejection]);
        let prepare = Prepare::all(problem, caps).map_err(refuse)?;
        let problem = problem.clone();
        Ok(Self {
            problem,
            prepare,
            schedule: Schedule::Rows,
            rejections: Vec::new(),
            passed_over: Vec::new(),
        })
    }

    /// Plans nothing: the parameters of a problem are all that is wanted.
    pub(crate) fn for_functions(problem: &Problem) -> Self {
        let (problem, prepare) = (problem.clone(), Vec::new());
        Self {
            problem,
            prepare,
            schedule: Schedule::Rows,
            rejections: Vec::new(),
            passed_over: Vec::new(),
        }
    }

    /// Only what happens to q and k before they meet, with the same kernels.
    pub(crate) fn only_rows(&self) -> Self {
        Self { schedule: Schedule::Rows, rejections: Vec::new(), ..self.clone() }
    }

    /// Only the building of the block table, with the same kernel, where the plan builds one.
    pub(crate) fn only_blocks(&self) -> Option<Self> {
        let (classify, block) = (self.schedule.classify()?.clone(), self.block());
        let schedule = Schedule::Blocks(Box::new(BlocksPlan { classify, block }));
        Some(Self { prepare: Vec::new(), schedule, rejections: Vec::new(), ..self.clone() })
    }

    /// Whether the whole call is one block, its keys visited in one step.
    pub(crate) fn is_one_block(&self) -> bool {
        let block = self.block();
        let one = block.blocks(&self.problem).nth(1).is_none();
        self.schedule == Schedule::Rows || one && !block.splits_keys(&self.problem)
    }

    /// The problem that is planned.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// The chosen path.
    pub fn path(&self) -> Path {
        match &self.schedule {
            // Block tables and prepared rows are there for the fused path.
            Schedule::Fused(fused) if fused.kernel.tile.is_some() => Path::FusedTile,
            Schedule::Fused(_) | Schedule::Blocks(_) | Schedule::Rows => Path::Fused,
            Schedule::Matrix(_) => Path::FusedMatrix,
            Schedule::Split(_) => Path::Split,
            Schedule::Staged(staged) if staged.score.matrix.is_some() => Path::StagedMatrix,
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
            Schedule::Matrix(matrix) => matrix.block,
            Schedule::Split(split) => split.block,
            Schedule::Blocks(plan) => plan.block,
            Schedule::Rows => BlockSize { batch: 1, heads: 1, rows: 1, keys: 1 },
            Schedule::Staged(staged) => staged.block,
        }
    }

    /// Scratch memory one call uses, bytes; a caller's own workspace must be at least this large.
    pub fn workspace_bytes(&self) -> u64 {
        match &self.schedule {
            Schedule::Fused(_) | Schedule::Matrix(_) | Schedule::Blocks(_) | Schedule::Rows => 0,
            Schedule::Split(split) => split.scratch_bytes(),
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

    /// Candidates that were considered before the chosen one, and why they cannot serve.
    pub fn rejections(&self) -> &[Rejection] {
        &self.rejections
    }

    /// Candidates that could serve too, and why they are slower; asked for by [`Policy::path`], they do serve.
    pub fn passed_over(&self) -> &[Rejection] {
        &self.passed_over
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
        let block =
            BlockSize::choose(&problem, caps, &policy, self.path().plain()).map_err(refuse)?;
        let mut schedule = self.schedule.clone();
        match &mut schedule {
            Schedule::Fused(fused) => {
                fused.block = block;
                if let Some(classify) = &mut fused.classify {
                    // The small call is large enough to have one as well.
                    if let Some(small) = Classify::new(&problem, fused.group_rows, &block) {
                        *classify = Classify { kernel: classify.kernel.clone(), ..small };
                    }
                }
            }
            Schedule::Matrix(matrix) => matrix.block = block,
            Schedule::Split(split) => **split = split.shrunk(&problem, block, caps),
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
        Ok(Self { problem, prepare, schedule, rejections: Vec::new(), passed_over: Vec::new() })
    }
}

/// What the planner tries, fastest first.
#[derive(Debug, Clone, Copy)]
enum Candidate {
    Split,
    FusedMatrix,
    FusedTile,
    FusedSubgroup,
    Fused,
    StagedMatrix,
    Staged,
}

impl Candidate {
    const ALL: [Self; 7] = [
        Self::Split,
        Self::FusedMatrix,
        Self::FusedTile,
        Self::FusedSubgroup,
        Self::Fused,
        Self::StagedMatrix,
        Self::Staged,
    ];

    fn path(self) -> Path {
        match self {
            Self::Split => Path::Split,
            Self::FusedMatrix => Path::FusedMatrix,
            Self::FusedTile => Path::FusedTile,
            Self::FusedSubgroup | Self::Fused => Path::Fused,
            Self::StagedMatrix => Path::StagedMatrix,
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
        let staged = |matrix| {
            let plan = StagedPlan::new(problem, caps, policy, matrix)?;
            Ok(Schedule::Staged(Box::new(plan)))
        };
        match self {
            Self::Split => Ok(Schedule::Split(Box::new(SplitPlan::new(problem, caps, policy)?))),
            Self::FusedMatrix => {
                Ok(Schedule::Matrix(Box::new(MatrixPlan::new(problem, caps, policy)?)))
            }
            Self::FusedTile => {
                Ok(Schedule::Fused(Box::new(FusedPlan::tile(problem, caps, policy)?)))
            }
            Self::FusedSubgroup => fused(true),
            Self::Fused => fused(false),
            Self::StagedMatrix => staged(true),
            Self::Staged => staged(false),
        }
    }
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
        for slower in &self.passed_over {
            writeln!(f, "  passed over {}: {}", slower.candidate, slower.reason)?;
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
        if let Schedule::Split(split) = &self.schedule {
            let size = match split.share_keys {
                0 => "as even as whole tiles are".into(),
                n => format!("of {n} keys"),
            };
            writeln!(f, "  shares  {} of the keys, {size}", split.shares)?;
        }
        write!(f, "  scratch {} B", self.workspace_bytes())
    }
}
