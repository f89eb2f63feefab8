//! The split path: few query rows, the keys shared out over workgroups, the shares merged.

use crate::error::Rejection;
use crate::kernel::{KernelSpec, SplitTile};
use crate::plan::fit::fitted;
use crate::plan::schedule::{check_resources, element_of};
use crate::plan::{BlockSize, Capabilities, Path, Policy, tuning};
use crate::problem::{Operand, Problem};

/// Most query rows of a head.
pub const MAX_ROWS: u32 = 16;

/// Keys of a share whose size does not depend on the batch.
const INVARIANT_KEYS: u32 = 512;

/// Most shares: merging reads them all.
const MAX_SHARES: u32 = 64;

/// Two kernels with partial results between them.
#[derive(Debug, Clone, PartialEq)]
pub struct SplitPlan {
    /// Shares of the keys.
    pub forward: KernelSpec,
    /// Their merge.
    pub merge: KernelSpec,
    /// Shape of a workgroup.
    pub tile: SplitTile,
    /// Shares.
    pub shares: u32,
    /// Keys of a share, 0 where each sequence's visible keys are shared out evenly.
    pub share_keys: u32,
    /// Size of a block: all rows, whole groups of heads.
    pub block: BlockSize,
    /// Partial sums of o and states of the normaliser: byte offset and size of each.
    pub scratch: [[u64; 2]; 2],
}

impl SplitPlan {
    pub(super) fn new(
        problem: &Problem,
        caps: &Capabilities,
        policy: &Policy,
    ) -> Result<Self, Rejection> {
        let refuse = |reason: String| Rejection { candidate: "split_forward".into(), reason };
        let a = problem.attention();
        let s = a.shape;
        if s.seq_q > MAX_ROWS {
            return Err(refuse(format!("{} query rows, at most {MAX_ROWS} are split", s.seq_q)));
        }
        let others = [
            (a.weights.is_some(), "scores and weights are written by the staged path only"),
            (a.normalizer.needs_row(), "the normaliser needs the whole row of scores"),
            (a.normalizer.takes_one(), "one key takes all weight, which is not summed"),
            (a.inner.is_sum(), "additive scores are made by the fused and staged paths"),
            (a.edges.is_some(), "a graph's rows have keys of their own"),
            (a.blocks.is_some(), "block tables are visited by the fused path"),
        ];
        if let Some((_, reason)) = others.iter().find(|(on, _)| *on) {
            return Err(refuse((*reason).into()));
        }
        let tile = tuning::split_tile(caps, &s, policy.tuning.as_deref());
        let block = BlockSize::choose(problem, caps, policy, Path::Split)?;
        let whole_groups = block.heads == s.heads_q || block.heads.is_multiple_of(s.group());
        if block.rows < s.seq_q || !whole_groups {
            return Err(refuse(format!(
                "a binding holds {} heads of {} rows, whole groups are split",
                block.heads, block.rows
            )));
        }
        let element = |operand| element_of(problem, operand, caps);
        let elements = [Operand::Q, Operand::K, Operand::V].map(element);
        let mut plan = Self {
            forward: fitted(KernelSpec::split_forward(problem, elements, tile), problem, 0, caps),
            merge: fitted(KernelSpec::split_merge(problem, element(Operand::O)), problem, 0, caps),
            tile,
            shares: 1,
            share_keys: 0,
            block,
            scratch: [[0; 2]; 2],
        };
        for spec in [&plan.forward, &plan.merge] {
            check_resources(spec, caps)?;
        }
        let workgroups = plan.workgroups(problem);
        if workgroups > u64::from(caps.max_workgroups) {
            return Err(refuse(format!("{workgroups} workgroups in a row")));
        }
        if policy.batch_invariant {
            plan.share_keys = INVARIANT_KEYS;
            plan.shares = s.seq_kv.div_ceil(INVARIANT_KEYS).max(1);
        } else {
            // A share's loops: over the tiles, and twice over the keys of a tile.
            let iterations = u64::from(s.seq_kv) * 3 / 2;
            let least = iterations.div_ceil(caps.max_loop_iterations.into()) as u32;
            plan.shares =
                least.max(shares(tuning::split_workgroups(caps), workgroups, s.seq_kv, tile.keys));
        }
        plan.scratch = plan.parts(problem, caps);
        let limit = caps.max_binding_bytes.min(caps.max_buffer_bytes);
        let limit = limit.min(policy.max_workspace_bytes);
        let [_, [start, size]] = plan.scratch;
        if start + size > limit {
            return Err(refuse(format!("{} B of partial results, allowed {limit}", start + size)));
        }
        Ok(plan)
    }

    /// The same kernels for a smaller call.
    pub(super) fn shrunk(&self, problem: &Problem, block: BlockSize, caps: &Capabilities) -> Self {
        // Shares of two tiles, the last of them less; or of a fixed size.
        let shares = problem.attention().shape.seq_kv.div_ceil(2 * self.tile.keys).max(2);
        let mut plan = Self { block, shares, ..self.clone() };
        plan.scratch = plan.parts(problem, caps);
        plan
    }

    /// Workgroups of `split_forward` for one share.
    fn workgroups(&self, problem: &Problem) -> u64 {
        let s = problem.attention().shape;
        let pairs = u64::from(self.block.batch) * u64::from(self.block.heads / s.group().max(1));
        pairs * u64::from(self.row_blocks(problem))
    }

    /// Workgroups that share out the rows of one group.
    pub fn row_blocks(&self, problem: &Problem) -> u32 {
        let s = problem.attention().shape;
        (s.group() * s.seq_q).div_ceil(self.tile.rows)
    }

    /// Bytes of partial results.
    pub fn scratch_bytes(&self) -> u64 {
        self.scratch[1][0] + self.scratch[1][1]
    }

    fn parts(&self, problem: &Problem, caps: &Capabilities) -> [[u64; 2]; 2] {
        let s = problem.attention().shape;
        let states = s.rows() * u64::from(self.shares);
        let partials = states * u64::from(s.dim_v.div_ceil(4)) * 16;
        let start = partials.max(16).next_multiple_of(caps.storage_alignment.max(16));
        [[0, partials.max(16)], [start, (states * 8).next_multiple_of(16).max(16)]]
    }
}

/// Shares that bring the workgroups to `wanted`, none of less than a tile.
fn shares(wanted: u64, workgroups: u64, seq_kv: u32, keys: u32) -> u32 {
    let most = seq_kv.div_ceil(keys).clamp(1, MAX_SHARES);
    (wanted.div_ceil(workgroups.max(1)) as u32).clamp(1, most)
}
