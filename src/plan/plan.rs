//! `Plan`: what will be dispatched, computed without a GPU.

use std::fmt;

use crate::error::{Error, Rejection, Result};
use crate::feature::mask::Blocks;
use crate::kernel::{Binding, KernelSpec, Resources};
use crate::plan::candidates::CANDIDATES;
use crate::plan::fit::check_resources;
use crate::plan::prepare::copies;
use crate::plan::steps::{Over, Part, Schedule, Shares, Step};
use crate::plan::{BlockSize, Capabilities, Classify, Path, Policy, tuning};
use crate::problem::{Attention, Problem};

/// How one problem will run on one device.
///
/// Its [`Display`](fmt::Display) form explains the choice, the variants, the blocks and the memory.
///
/// ```
/// use heedful::{Attention, Capabilities, Path, Plan, Policy, Shape};
/// let problem = Attention::new(Shape::self_attention(1, 8, 4096, 64)).validate()?;
/// let plan = Plan::new(&problem, &Capabilities::default(), &Policy::default())?;
/// assert_eq!(plan.path(), Path::FusedTile);
/// assert!(plan.to_string().contains("fused_forward_tile/f32x4.f32x4"));
/// # Ok::<(), heedful::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    problem: Problem,
    /// What is done to q and k first.
    copies: Vec<Step>,
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
        let mut copies = copies(problem, caps).map_err(|x| unsupported(vec![x]))?;
        for step in &mut copies {
            step.kernel.build.unchecked = policy.checks.are_off();
        }
        let prepared: Vec<&KernelSpec> = copies.iter().map(|step| &step.kernel).collect();
        if let Some(rejection) = refused(&prepared) {
            return Err(unsupported(vec![rejection]));
        }
        let planned = |schedule, rejections, passed_over| {
            let (problem, copies) = (problem.clone(), copies.clone());
            Self { problem, copies, schedule, rejections, passed_over }
        };
        let (mut passed_over, mut spare) = (Vec::new(), None);
        for candidate in CANDIDATES {
            let path = candidate.path;
            let wanted = match policy.path {
                Path::Auto => policy.matrix_units || !path.is_matrix(),
                given => given == path,
            };
            if !wanted {
                continue;
            }
            let schedule = (candidate.schedule)(problem, caps, policy);
            match schedule.map(|schedule| schedule.compiled(policy.checks)) {
                Ok(schedule) => match refused(&[&prepared, &*schedule.kernels()].concat()) {
                    Some(rejection) => rejections.push(rejection),
                    None => {
                        let main = schedule.main().filter(|_| policy.path == Path::Auto);
                        let reason =
                            main.and_then(|x| (candidate.slower)(x, problem, caps, policy));
                        match reason {
                            Some(reason) => {
                                let candidate = schedule.name().into();
                                passed_over.push(Rejection { candidate, reason });
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
        Ok(Self::of(problem, Vec::new(), Schedule::table(classify, block)))
    }

    /// Plans only what happens to q and k before they meet.
    ///
    /// # Errors
    /// Unsupported where they are too large to be bound whole.
    pub(crate) fn for_rows(problem: &Problem, caps: &Capabilities) -> Result<Self> {
        let refuse = |rejection| Error::unsupported(problem.to_string(), vec![rejection]);
        let copies = copies(problem, caps).map_err(refuse)?;
        Ok(Self::of(problem, copies, Schedule::empty()))
    }

    /// Plans nothing: the parameters of a problem are all that is wanted.
    pub(crate) fn for_functions(problem: &Problem) -> Self {
        Self::of(problem, Vec::new(), Schedule::empty())
    }

    fn of(problem: &Problem, copies: Vec<Step>, schedule: Schedule) -> Self {
        let (rejections, passed_over) = (Vec::new(), Vec::new());
        Self { problem: problem.clone(), copies, schedule, rejections, passed_over }
    }

    /// Only what happens to q and k before they meet, with the same kernels.
    pub(crate) fn only_rows(&self) -> Self {
        Self::of(&self.problem, self.copies.clone(), Schedule::empty())
    }

    /// Only the building of the block table, with the same kernel, where the plan builds one.
    pub(crate) fn only_blocks(&self) -> Option<Self> {
        let step = self.schedule.steps.iter().find(|step| step.over == Over::Table)?;
        let ((blocks, scan), kernel) = (self.schedule.table?, step.kernel.clone());
        let classify = Classify { kernel, blocks, scan };
        Some(Self::of(&self.problem, Vec::new(), Schedule::table(classify, self.block())))
    }

    /// Whether the whole call is one block, its keys visited in one step.
    pub(crate) fn is_one_block(&self) -> bool {
        let block = self.block();
        let one = block.blocks(&self.problem).nth(1).is_none();
        self.schedule.steps.is_empty() || one && !block.splits_keys(&self.problem)
    }

    /// The problem that is planned.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// The chosen path.
    pub fn path(&self) -> Path {
        self.schedule.path
    }

    /// The kernels and what each goes over, in the order of their dispatches.
    #[doc(hidden)]
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.copies.iter().chain(&self.schedule.steps)
    }

    /// Size of the blocks.
    #[doc(hidden)]
    pub fn block(&self) -> BlockSize {
        self.schedule.block
    }

    /// Shares that keys are split into, where they are.
    #[doc(hidden)]
    pub fn shares(&self) -> Option<Shares> {
        self.schedule.shares
    }

    /// The part of the scratch that is bound as `binding`.
    pub(crate) fn scratch(&self, binding: Binding) -> Option<Part> {
        self.schedule.scratch.iter().find(|part| part.binding == binding).copied()
    }

    /// Scratch memory one call uses, bytes; a caller's own workspace must be at least this large.
    pub fn workspace_bytes(&self) -> u64 {
        self.schedule.scratch_bytes()
    }

    /// The blocks of the call's block table, given or built by the plan, and the rows of a block that
    /// building it looks at.
    pub(crate) fn blocks(&self) -> Option<(Blocks, u32)> {
        let given = self.problem.attention().masks.blocks.map(|blocks| (blocks, blocks.rows));
        self.schedule.table.or(given)
    }

    /// Words of the block table that the plan builds for itself.
    pub(crate) fn block_words(&self) -> u64 {
        let shape = self.problem.attention().shape;
        self.schedule.table.map_or(0, |(blocks, _)| blocks.words(&shape))
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
    #[doc(hidden)]
    pub fn kernels(&self) -> Vec<&KernelSpec> {
        self.steps().map(|step| &step.kernel).collect()
    }

    /// What is done to q and k first.
    pub(crate) fn copies(&self) -> &[Step] {
        &self.copies
    }

    /// Bytes of the f32 copies of q and k that a bound plan holds.
    pub fn prepared_bytes(&self) -> u64 {
        let bytes = |step: &Step| if let Over::Copy { bytes, .. } = step.over { bytes } else { 0 };
        self.copies.iter().map(bytes).sum()
    }

    /// The same kernels for a smaller call of the same features: what the self-test runs.
    pub(crate) fn shrunk(&self, attention: &Attention, caps: &Capabilities) -> Result<Self> {
        let problem = attention.validate()?;
        let policy = Policy::default();
        let refuse = |rejection| Error::unsupported("the self-test", vec![rejection]);
        let block =
            BlockSize::choose(&problem, caps, &policy, self.path().plain()).map_err(refuse)?;
        let schedule = self.schedule.clone().shrunk(&problem, block, caps);
        let mut copies = copies(&problem, caps).map_err(refuse)?;
        for (small, step) in copies.iter_mut().zip(&self.copies) {
            small.kernel = step.kernel.clone();
        }
        Ok(Self::of(&problem, copies, schedule))
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
        if !self.copies.is_empty() {
            writeln!(f, "  copies  {} B of q and k in f32", self.prepared_bytes())?;
        }
        if let Some(Shares { n, keys }) = self.shares() {
            let size = match keys {
                0 => "as even as whole tiles are".into(),
                keys => format!("of {keys} keys"),
            };
            writeln!(f, "  shares  {n} of the keys, {size}")?;
        }
        write!(f, "  scratch {} B", self.workspace_bytes())
    }
}
