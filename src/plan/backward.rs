//! `BackwardPlan`: how gradients will be computed, without a GPU.
//!
//! One path so far, staged: products of q and k and of d_o and v in scratch, a kernel that turns them row by row into
//! weights and gradients of products, and three products that sum these up. Scratch is two planes of scores for a
//! block of rows, three where a bias is learned, whatever the length.

use std::fmt;

use crate::error::{Error, Rejection, Result};
use crate::kernel::{BackwardParts, Binding, KernelSpec, Resources, SUM_TILE, TILE};
use crate::plan::backward_steps::{BackwardStep, Makes, after, before, by_blocks};
use crate::plan::fit::{check_resources, fitted, too_many};
use crate::plan::steps::Part;
use crate::plan::{Block, BlockSize, Capabilities, Policy, tuning, turns};
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
    pub(crate) steps: Vec<BackwardStep>,
    block: BlockSize,
    scratch: Vec<(Option<Operand>, Part)>,
}

impl BackwardPlan {
    /// Plans gradients for a device described by `caps`.
    ///
    /// # Errors
    /// Unsupported, with the reason.
    pub fn new(problem: &BackwardProblem, caps: &Capabilities, policy: &Policy) -> Result<Self> {
        let native = policy.native_f16.unwrap_or_else(|| tuning::prefers_native_f16(caps));
        let caps = &Capabilities { shader_f16: caps.shader_f16 && native, ..caps.clone() };
        let staged = Self::staged(problem, caps, policy);
        staged.map_err(|rejection| Error::unsupported(problem.to_string(), vec![rejection]))
    }

    fn staged(
        backward: &BackwardProblem,
        caps: &Capabilities,
        policy: &Policy,
    ) -> Result<Self, Rejection> {
        if let Some(reason) = lacking(backward, caps) {
            return Err(Rejection { candidate: "staged".into(), reason });
        }
        let problem = backward.problem();
        let parts = BackwardParts::of(backward);
        let planes = 2 + u64::from(parts.entries);
        let block = choose(backward, caps, policy, planes)?;
        let carry = block.rows < problem.attention().shape.seq_q;
        let mut steps = before(backward, caps)?;
        steps.extend(by_blocks(backward, caps, parts, carry));
        steps.extend(after(backward, caps));
        let step = |(makes, mut kernel): (Makes, KernelSpec)| {
            kernel.build.unchecked = policy.checks.are_off();
            BackwardStep { makes, kernel: fitted(kernel, problem, 0, caps) }
        };
        let steps: Vec<BackwardStep> = steps.into_iter().map(step).collect();
        steps.iter().try_for_each(|step| check_resources(&step.kernel, caps))?;
        let scratch = scratch(backward, &block, parts, carry, caps);
        Ok(Self { problem: backward.clone(), steps, block, scratch })
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
        let carry = self.steps.iter().any(|step| step.kernel.writes.carry);
        let (heads, rows) = match carry {
            false => (s.heads_q, s.seq_q),
            true if s.seq_q > TILE => (s.group(), TILE),
            true => (s.group(), s.seq_q.div_ceil(2)),
        };
        let batch = if apart || carry { 1 } else { s.batch };
        let block = BlockSize { batch, heads, rows, keys: s.seq_kv };
        let scratch = scratch(&problem, &block, BackwardParts::of(&problem), carry, caps);
        Ok(Self { problem, steps: self.steps.clone(), block, scratch })
    }

    /// The problem that is planned.
    pub fn problem(&self) -> &BackwardProblem {
        &self.problem
    }

    /// Size of the blocks.
    pub fn block(&self) -> BlockSize {
        self.block
    }

    /// The kernel variants that will run, in the order of their first dispatch.
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
    pub(crate) fn held_bytes(&self, makes: Makes) -> Option<u64> {
        let problem = self.problem.problem();
        let rows = |of: Operand, dim: u32| {
            let sizes = [problem.attention().shape.batch, problem.heads(of), problem.seq(of), dim];
            Some(4 * sizes.map(u64::from).iter().product::<u64>())
        };
        let stored = |of| {
            let elements = problem.elements(of).unwrap_or(0);
            Some(elements * problem.element_bits(of) / 8)
        };
        match makes {
            Makes::Copy(of) => rows(of, problem.attention().shape.dim_qk),
            Makes::Gradient(of) if problem.prepares(of) => {
                rows(of, problem.attention().shape.dim_qk)
            }
            Makes::Turned => rows(Operand::Q, problem.dim(Operand::Q)),
            Makes::Gradient(of @ Operand::Q) if !self.problem.wants(of) => stored(of),
            // Each row's part.
            Makes::Gradient(Operand::ScoreV) => rows(Operand::Q, problem.attention().shape.dim_qk),
            Makes::Unprepared(of) if !self.problem.wants(of) => stored(of),
            _ => None,
        }
    }

    /// The blocks in the order in which they are dispatched.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = Block> + use<> {
        self.block.blocks(self.problem.problem())
    }
}

/// What is not served yet.
fn lacking(backward: &BackwardProblem, caps: &Capabilities) -> Option<String> {
    let a = backward.problem().attention();
    let not = |what: &str| Some(format!("{what}: gradients are computed by the reference only"));
    if a.inner.is_sum() && a.shape.seq_kv.div_ceil(SUM_TILE) > caps.max_workgroups {
        return not(&format!("additive scores over {} keys", a.shape.seq_kv));
    }
    // Tensors are bound whole, from an aligned offset.
    let limit = caps.max_binding_bytes.saturating_sub(caps.storage_alignment + 4);
    let problem = backward.problem();
    for (operand, elements) in problem.operands().into_iter().filter(|(x, _)| !x.is_table()) {
        // Gradients may be wider than what they are of.
        let wanted = if backward.wants(operand) { backward.gradient_bits(operand) } else { 0 };
        let bits = problem.element_bits(operand).max(wanted);
        let bytes = elements.saturating_mul(bits).div_ceil(8);
        if bytes > limit && operand != Operand::Weights {
            let wider = wanted > problem.element_bits(operand);
            let of = if wider { "gradient of " } else { "" };
            let found = format!("{of}{operand} of {bytes} B");
            return not(&format!("{found}, a binding of this device holds {limit}"));
        }
    }
    let width = a.relative.map_or(1, |relative| relative.width());
    if width > u64::from(caps.max_workgroups) && backward.wants(Operand::Relative) {
        return not(&format!("a relative table of {width} elements a head"));
    }
    None
}

/// The largest block whose planes fit: whole groups of heads, so that a key's gradient is one workgroup's.
fn choose(
    backward: &BackwardProblem,
    caps: &Capabilities,
    policy: &Policy,
    planes: u64,
) -> Result<BlockSize, Rejection> {
    let problem = backward.problem();
    let s = problem.attention().shape;
    let refuse = |reason| Rejection { candidate: "staged".into(), reason };
    let turns = turns::over_keys(backward);
    if turns > caps.max_loop_iterations.into() {
        return Err(refuse(too_many(turns, caps)));
    }
    let row_bytes = BlockSize::score_stride(problem) * 4;
    let binding = caps.max_binding_bytes.min(caps.max_buffer_bytes);
    let workspace = policy.max_workspace_bytes.min(caps.max_buffer_bytes) / planes;
    let limit = binding.min(workspace);
    let key_tiles = u64::from(s.seq_kv.div_ceil(TILE));
    if key_tiles > caps.max_workgroups.into() {
        return Err(refuse(format!(
            "{key_tiles} key tiles, the device dispatches {}",
            caps.max_workgroups
        )));
    }
    let mut size = BlockSize {
        batch: s.batch.max(1),
        heads: s.heads_q,
        rows: s.seq_q.max(1),
        keys: s.seq_kv.max(1),
    };
    loop {
        let pairs = u64::from(size.batch) * u64::from(size.heads);
        let bytes = size.block_rows().checked_mul(row_bytes);
        let most = u64::from(caps.max_workgroups);
        let rows = u64::from(size.rows.div_ceil(4));
        let turns = turns::over_rows(backward, &size);
        let short = turns <= caps.max_loop_iterations.into();
        if bytes.is_some_and(|bytes| bytes <= limit) && pairs <= most && rows <= most && short {
            return Ok(size);
        }
        if size.batch > 1 {
            size.batch = size.batch.div_ceil(2);
        } else if size.heads > s.group() {
            size.heads = (size.heads / s.group()).div_ceil(2) * s.group();
        } else if size.rows > TILE {
            size.rows = (size.rows / 2 / TILE * TILE).max(TILE);
        } else if size.rows > 1 {
            size.rows /= 2;
        } else if !short {
            let most = caps.max_loop_iterations;
            let found = format!("{turns} iterations over rows");
            return Err(refuse(format!("{found}, this driver ends loops after {most}")));
        } else {
            let needed = u64::from(s.group()).saturating_mul(row_bytes);
            return Err(refuse(format!(
                "score scratch needs {needed} for the smallest block, the device or policy allows {limit}"
            )));
        }
    }
}

/// The parts of the scratch, one after another at aligned offsets.
fn scratch(
    backward: &BackwardProblem,
    block: &BlockSize,
    parts: BackwardParts,
    carry: bool,
    caps: &Capabilities,
) -> Vec<(Option<Operand>, Part)> {
    let s = backward.problem().attention().shape;
    let rows = block.block_rows();
    let plane = rows * BlockSize::score_stride(backward.problem()) * 4;
    let keys = u64::from(block.batch) * u64::from(block.heads / s.group()) * u64::from(s.seq_kv);
    let carried = |dim: u32| keys * u64::from(dim.div_ceil(4)) * 16;
    let factors = backward.problem().elements(Operand::HeadScale).is_some();
    let (v, k) = (Some(Operand::V), Some(Operand::K));
    let all = [
        (true, Binding::Scores, None, plane),
        (true, Binding::Grads, None, plane),
        (parts.entries, Binding::Entries, None, plane),
        (true, Binding::InverseSums, None, rows * 4),
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
        writeln!(f, "  path    staged")?;
        for spec in self.kernels() {
            let r = Resources::of(spec);
            writeln!(
                f,
                "  kernel  {spec}  ({} invocations, {} B workgroup memory, {} storage buffers)",
                r.invocations, r.workgroup_bytes, r.storage_buffers
            )?;
        }
        writeln!(f, "  blocks  of at most {batch} sequences x {heads} heads x {rows} rows")?;
        let held = self.steps.iter().filter_map(|step| self.held_bytes(step.makes)).sum::<u64>();
        if held > 0 {
            writeln!(f, "  copies  {held} B of q and k as they meet, and of their gradients")?;
        }
        write!(f, "  scratch {} B", self.workspace_bytes())
    }
}
