//! `BackwardPlan`: how gradients will be computed, without a GPU.
//!
//! Staged: products of q and k and of d_o and v in scratch, a kernel that turns them row by row into weights and
//! gradients of products, and three products that sum these up. Scratch is two planes of scores for a block of rows,
//! three where a bias is learned, whatever the length. Fused (`fused_backward`): scores are computed again, row by row
//! and key by key, from what the forward pass wrote, in registers or on tiles.

use std::fmt;

use crate::error::{Error, Rejection, Result};
use crate::kernel::{BackwardParts, Binding, KernelSpec, Resources, TILE};
use crate::plan::backward_steps::{BackwardStep, Makes, Steps, after, before, by_blocks};
use crate::plan::fit::{check_resources, fitted};
use crate::plan::steps::Part;
use crate::plan::{
    Block, BlockSize, Capabilities, Path, Policy, fused_backward, staged_backward, tuning,
};
use crate::problem::{Attention, Backward, BackwardProblem, Operand};

/// How the gradients of one problem will be computed on one device.
///
/// Its [`Display`](fmt::Display) form lists the kernels, the blocks and the memory.
///
/// ```
/// use heedful::{Attention, Backward, BackwardPlan, Capabilities, Policy, Shape};
/// let problem = Backward::of(Attention::new(Shape::self_attention(1, 8, 512, 64))).validate()?;
/// let plan = BackwardPlan::new(&problem, &Capabilities::default(), &Policy::default())?;
/// assert!(plan.to_string().contains("backward_row"));
/// # Ok::<(), heedful::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct BackwardPlan {
    problem: BackwardProblem,
    path: Path,
    pub(crate) steps: Vec<BackwardStep>,
    block: BlockSize,
    scratch: Vec<(Option<Operand>, Part)>,
    /// Paths that cannot serve, and why.
    pub(crate) rejections: Vec<Rejection>,
    /// Paths that are known to be slower, and why.
    passed_over: Vec<Rejection>,
}

impl BackwardPlan {
    /// The paths of gradients, the first that can serve and is not known to be slower first.
    pub const PATHS: [Path; 3] = [Path::FusedTile, Path::Fused, Path::Staged];

    /// Plans gradients for a device described by `caps`: fused where that can serve and is not known to be slower, else
    /// staged. [`Policy::path`] has one of [`BackwardPlan::PATHS`] alone; what it says of others is about the forward
    /// pass.
    ///
    /// # Errors
    /// Unsupported, with the reasons.
    pub fn new(problem: &BackwardProblem, caps: &Capabilities, policy: &Policy) -> Result<Self> {
        let (plans, rejections) = Self::candidates(problem, caps, policy);
        let first = plans.into_iter().next();
        first.ok_or_else(|| Error::unsupported(problem.to_string(), rejections))
    }

    /// Every plan that can serve, the one that is to be preferred first, and why the others cannot.
    pub(crate) fn candidates(
        problem: &BackwardProblem,
        caps: &Capabilities,
        policy: &Policy,
    ) -> (Vec<Self>, Vec<Rejection>) {
        let native = policy.native_f16.unwrap_or_else(|| tuning::prefers_native_f16(caps));
        let caps = &Capabilities { shader_f16: caps.shader_f16 && native, ..caps.clone() };
        let (mut plans, mut rejections, mut slower) = (Vec::new(), Vec::new(), Vec::new());
        let asked = Self::PATHS.contains(&policy.path);
        for path in Self::PATHS.into_iter().filter(|path| !asked || policy.path == *path) {
            let plan = match path {
                Path::Staged => Self::staged(problem, caps, policy),
                fused => Self::fused(problem, fused, caps, policy),
            };
            match plan {
                Err(rejection) => rejections.push(rejection),
                Ok(plan) => match plan.slower(caps).filter(|_| !asked) {
                    Some(reason) => slower.push((plan, reason)),
                    None => plans.push(plan),
                },
            }
        }
        let passed_over: Vec<Rejection> = slower.iter().map(|(_, reason)| reason.clone()).collect();
        plans.extend(slower.into_iter().map(|(plan, _)| plan));
        for plan in &mut plans {
            plan.rejections.clone_from(&rejections);
            plan.passed_over = passed_over.clone();
            plan.passed_over.retain(|x| x.candidate != plan.path.to_string());
        }
        (plans, rejections)
    }

    fn fused(
        backward: &BackwardProblem,
        path: Path,
        caps: &Capabilities,
        policy: &Policy,
    ) -> Result<Self, Rejection> {
        let refuse = |reason| Rejection { candidate: path.to_string(), reason };
        let tile = fused_backward::tile(backward, path, caps).map_err(refuse)?;
        let block = fused_backward::block(backward, &tile, caps).map_err(refuse)?;
        if let Some(reason) = staged_backward::lacking(backward, caps) {
            return Err(refuse(reason));
        }
        let mut steps = before(backward, caps)?;
        steps.extend(fused_backward::steps(backward, tile, caps));
        steps.extend(after(backward, caps));
        let plan = Self::of(backward, path, steps, block, caps, policy)?;
        let most = policy.max_workspace_bytes.min(caps.max_buffer_bytes);
        match plan.workspace_bytes() {
            bytes if bytes > most => Err(refuse(format!(
                "what is kept of rows needs {bytes} B, the device or policy allows {most}"
            ))),
            _ => Ok(plan),
        }
    }

    /// Why another path is faster, where it is known to be.
    fn slower(&self, caps: &Capabilities) -> Option<Rejection> {
        let reason = match self.path {
            Path::Fused => tuning::gradients_are_slower(caps),
            Path::FusedTile => {
                let shape = &self.problem.problem().attention().shape;
                tuning::gradient_tiles_are_slower(caps, shape)
            }
            _ => None,
        }?;
        Some(Rejection { candidate: self.path.to_string(), reason })
    }

    /// A plan of steps that are fitted to the device.
    fn of(
        backward: &BackwardProblem,
        path: Path,
        steps: Steps,
        block: BlockSize,
        caps: &Capabilities,
        policy: &Policy,
    ) -> Result<Self, Rejection> {
        let step = |(makes, mut kernel): (Makes, KernelSpec)| {
            kernel.build.unchecked = policy.checks.are_off();
            kernel.adds_to = adds_to(backward, makes, &kernel);
            BackwardStep { makes, kernel: fitted(kernel, backward.problem(), 0, caps) }
        };
        let steps: Vec<BackwardStep> = steps.into_iter().map(step).collect();
        let needs = |step: &BackwardStep| check_resources(&step.kernel, caps);
        let lacks = |x: Rejection| Rejection {
            candidate: path.to_string(),
            reason: format!("{}: {}", x.candidate, x.reason),
        };
        steps.iter().try_for_each(needs).map_err(lacks)?;
        let scratch = scratch(backward, path, &block, steps.iter().any(carries), caps);
        let (rejections, passed_over) = (Vec::new(), Vec::new());
        Ok(Self { problem: backward.clone(), path, steps, block, scratch, rejections, passed_over })
    }

    fn staged(
        backward: &BackwardProblem,
        caps: &Capabilities,
        policy: &Policy,
    ) -> Result<Self, Rejection> {
        if let Some(reason) = staged_backward::lacking(backward, caps) {
            return Err(Rejection { candidate: "staged".into(), reason });
        }
        let problem = backward.problem();
        let parts = BackwardParts::of(backward);
        let planes = 2 + u64::from(parts.entries);
        let block = staged_backward::choose(backward, caps, policy, planes)?;
        let carry = block.rows < problem.attention().shape.seq_q;
        let mut steps = before(backward, caps)?;
        steps.extend(by_blocks(backward, caps, parts, carry));
        steps.extend(after(backward, caps));
        Self::of(backward, Path::Staged, steps, block, caps, policy)
    }

    /// The same kernels for a smaller call of the same features: what the self-test runs, all sequences in one block or
    /// each in its own.
    pub(crate) fn shrunk(
        &self,
        attention: Attention,
        caps: &Capabilities,
        apart: bool,
    ) -> Result<Self> {
        let backward = Backward { attention, ..self.problem.backward().clone() };
        let problem = backward.validate()?;
        let s = problem.problem().attention().shape;
        let carry = self.steps.iter().any(carries);
        let (heads, rows) = match carry {
            false => (s.heads_q, s.seq_q),
            true if s.seq_q > TILE => (s.group(), TILE),
            true => (s.group(), s.seq_q.div_ceil(2)),
        };
        let batch = if apart || carry { 1 } else { s.batch };
        let block = BlockSize { batch, heads, rows, keys: s.seq_kv };
        let scratch = scratch(&problem, self.path, &block, carry, caps);
        Ok(Self { problem, block, scratch, ..self.clone() })
    }

    /// The kernels that write the gradient of an operand.
    pub(crate) fn writers(&self, operand: Operand) -> Vec<&KernelSpec> {
        let of = |writes: &dyn Fn(Makes) -> bool| -> Vec<&KernelSpec> {
            let steps = self.steps.iter().filter(|step| writes(step.makes));
            steps.map(|step| &step.kernel).collect()
        };
        let last = of(&|makes| makes == Makes::Unprepared(operand));
        if !last.is_empty() {
            return last;
        }
        let alone = self.steps.iter().any(|step| step.makes == Makes::OfQueries);
        of(&|makes| match makes {
            Makes::Gradient(written) => written == operand,
            Makes::OfRows => operand == Operand::Q && !alone,
            Makes::OfQueries => operand == Operand::Q,
            Makes::OfKeys => matches!(operand, Operand::K | Operand::V),
            Makes::Copy(_) | Makes::Turned | Makes::Products | Makes::Incoming => false,
            Makes::Rows | Makes::Delta | Makes::Unprepared(_) => false,
        })
    }

    /// The problem that is planned.
    pub fn problem(&self) -> &BackwardProblem {
        &self.problem
    }

    /// How: one of [`BackwardPlan::PATHS`].
    pub fn path(&self) -> Path {
        self.path
    }

    /// Whether it reads what the forward pass wrote into o and lse.
    pub fn reads_outputs(&self) -> bool {
        self.steps.iter().any(|step| step.makes == Makes::Delta)
    }

    /// Size of the blocks.
    #[doc(hidden)]
    pub fn block(&self) -> BlockSize {
        self.block
    }

    /// The kernel variants that will run, in the order of their first dispatch.
    #[doc(hidden)]
    pub fn kernels(&self) -> Vec<&KernelSpec> {
        self.steps.iter().map(|step| &step.kernel).collect()
    }

    /// Scratch memory one pass uses, bytes; a caller's own workspace must be at least this large.
    pub fn workspace_bytes(&self) -> u64 {
        self.scratch.last().map_or(0, |(_, part)| part.start + part.bytes)
    }

    /// A part of the scratch: what it is bound as, and whose sums they are where there are several of a kind.
    pub(crate) fn scratch(&self, binding: Binding, of: Option<Operand>) -> Option<Part> {
        let found =
            self.scratch.iter().find(|(whose, part)| part.binding == binding && *whose == of);
        found.map(|(_, part)| *part)
    }

    /// Bytes of what a step leaves to others beside the scratch; `None` where it leaves nothing.
    pub(crate) fn held_bytes(&self, step: &BackwardStep) -> Option<u64> {
        let problem = self.problem.problem();
        let rows = |of: Operand, dim: u32| Some(4 * problem.copy_rows(of) * u64::from(dim));
        let stored = |of| {
            let elements = problem.elements(of).unwrap_or(0);
            Some(elements * self.problem.gradient_bits(of) / 8)
        };
        match step.makes {
            Makes::Copy(of) => rows(of, problem.attention().shape.dim_qk),
            Makes::Gradient(of) if problem.prepares(of) => {
                rows(of, problem.attention().shape.dim_qk)
            }
            Makes::OfRows | Makes::OfQueries
                if problem.prepares(Operand::Q) && step.kernel.has_element(Binding::O) =>
            {
                rows(Operand::Q, problem.attention().shape.dim_qk)
            }
            Makes::OfKeys
                if problem.prepares(Operand::K) && step.kernel.has_element(Binding::O) =>
            {
                rows(Operand::K, problem.attention().shape.dim_qk)
            }
            Makes::Turned => rows(Operand::Q, problem.dim(Operand::Q)),
            Makes::Gradient(of @ Operand::Q) if !self.problem.wants(of) => stored(of),
            // Each row's part.
            Makes::Gradient(Operand::ScoreV) => {
                let s = problem.attention().shape;
                Some(4 * s.rows() * u64::from(s.dim_qk))
            }
            Makes::Unprepared(of) if !self.problem.wants(of) => stored(of),
            _ => None,
        }
    }

    /// The blocks in the order in which they are dispatched.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = Block> + use<> {
        self.block.blocks(self.problem.problem())
    }
}

/// What a step adds to: gradients that are the caller's, where these are summed up over calls. Kernels that go on with
/// what an earlier block left do so from the first one on.
fn adds_to(backward: &BackwardProblem, makes: Makes, kernel: &KernelSpec) -> Vec<Binding> {
    let own = |operand| backward.wants(operand) && !backward.problem().prepares(operand);
    let adds = |binding: &Binding| match (makes, binding) {
        (Makes::Gradient(Operand::Q) | Makes::OfRows | Makes::OfQueries, Binding::O) => {
            own(Operand::Q)
        }
        (Makes::Gradient(Operand::K) | Makes::OfKeys, Binding::O) => own(Operand::K),
        (Makes::Gradient(_), Binding::O | Binding::DTable) => true,
        (Makes::Unprepared(operand), Binding::O) => backward.wants(operand),
        (_, binding) => *binding == Binding::DV,
    };
    let bound = kernel.bindings().into_iter().map(|bound| bound.binding);
    bound.filter(|binding| backward.backward().accumulate && adds(binding)).collect()
}

fn carries(step: &BackwardStep) -> bool {
    step.kernel.writes.carry
}

/// The parts of the scratch, one after another at aligned offsets.
fn scratch(
    backward: &BackwardProblem,
    path: Path,
    block: &BlockSize,
    carry: bool,
    caps: &Capabilities,
) -> Vec<(Option<Operand>, Part)> {
    let (staged, parts) = (path == Path::Staged, BackwardParts::of(backward));
    let keeps = !staged && fused_backward::keeps(backward.problem().attention());
    let s = backward.problem().attention().shape;
    let rows = block.block_rows();
    let plane = rows * BlockSize::score_stride(backward.problem()) * 4;
    let keys = u64::from(block.batch) * u64::from(block.heads / s.group()) * u64::from(s.seq_kv);
    let carried = |dim: u32| keys * u64::from(dim.div_ceil(4)) * 16;
    let factors = backward.problem().elements(Operand::HeadScale).is_some();
    let (v, k) = (Some(Operand::V), Some(Operand::K));
    let all = [
        (staged, Binding::Scores, None, plane),
        (staged, Binding::Grads, None, plane),
        (parts.entries, Binding::Entries, None, plane),
        (staged, Binding::InverseSums, None, rows * 4),
        (keeps, Binding::States, None, s.rows() * 16),
        (parts.centers, Binding::CenterSums, None, s.rows() * 64),
        (parts.row_sums, Binding::RowSums, Some(Operand::Sinks), s.rows() * 4),
        (factors, Binding::RowSums, Some(Operand::HeadScale), s.rows() * 4),
        (carry, Binding::Carry, v, carried(s.dim_v)),
        (carry, Binding::Carry, k, carried(s.dim_qk)),
    ];
    let align = caps.storage_alignment.max(16);
    let mut end = 0_u64;
    let mut parts = Vec::new();
    for (_, binding, of, bytes) in all.into_iter().filter(|(on, ..)| *on) {
        let (start, bytes) = (end.next_multiple_of(align), bytes.next_multiple_of(16).max(16));
        end = start + bytes;
        parts.push((of, Part { binding, start, bytes }));
    }
    parts
}

impl fmt::Display for BackwardPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BlockSize { batch, heads, rows, .. } = self.block;
        writeln!(f, "plan for {}", self.problem)?;
        for rejection in &self.rejections {
            writeln!(f, "  refused {}: {}", rejection.candidate, rejection.reason)?;
        }
        for slower in &self.passed_over {
            writeln!(f, "  passed over {}: {}", slower.candidate, slower.reason)?;
        }
        writeln!(f, "  path    {}", self.path)?;
        for spec in self.kernels() {
            let r = Resources::of(spec);
            writeln!(
                f,
                "  kernel  {spec}  ({} invocations, {} B workgroup memory, {} storage buffers)",
                r.invocations, r.workgroup_bytes, r.storage_buffers
            )?;
        }
        writeln!(f, "  blocks  of at most {batch} sequences x {heads} heads x {rows} rows")?;
        let held = self.steps.iter().filter_map(|step| self.held_bytes(step)).sum::<u64>();
        if held > 0 {
            writeln!(f, "  copies  {held} B of q and k as they meet, and of their gradients")?;
        }
        write!(f, "  scratch {} B", self.workspace_bytes())
    }
}
