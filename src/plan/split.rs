//! The split path: few query rows, the keys shared out over workgroups, the shares merged.

use crate::error::Rejection;
use crate::kernel::{KernelSpec, MergeTile};
use crate::plan::fit::{check_resources, element_of, fitted};
use crate::plan::steps::{Over, Schedule, Shares, Step};
use crate::plan::{BlockSize, Capabilities, Path, Policy, tuning};
use crate::problem::{Operand, Problem};

/// Most query rows of a head.
pub const MAX_ROWS: u32 = 16;

/// Keys of a share whose size does not depend on the batch.
pub(super) const INVARIANT_KEYS: u32 = 512;

/// Most shares: merging reads them all.
const MAX_SHARES: u32 = 256;

/// Two kernels with partial results between them; blocks are all rows of whole groups of heads.
pub(super) fn schedule(
    problem: &Problem,
    caps: &Capabilities,
    policy: &Policy,
) -> Result<Schedule, Rejection> {
    let refuse = |reason: String| Rejection { candidate: "split_forward".into(), reason };
    let s = problem.attention().shape;
    if let Some(reason) = unserved(problem) {
        return Err(refuse(reason));
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
    let kernels = [
        KernelSpec::split_forward(problem, elements, tile),
        KernelSpec::split_merge(problem, element(Operand::O), MergeTile::of_split(&tile)),
    ];
    let steps =
        kernels.map(|kernel| Step { kernel: fitted(kernel, problem, 0, caps), over: Over::Block });
    for step in &steps {
        check_resources(&step.kernel, caps)?;
    }
    let rows = (s.group() * s.seq_q).div_ceil(tile.rows);
    let groups = u64::from(block.batch) * u64::from(block.heads / s.group().max(1));
    let workgroups = groups * u64::from(rows);
    if workgroups > u64::from(caps.max_workgroups) {
        return Err(refuse(format!("{workgroups} workgroups in a row")));
    }
    let shares = if policy.batch_invariant {
        Shares { n: s.seq_kv.div_ceil(INVARIANT_KEYS).max(1), keys: INVARIANT_KEYS }
    } else {
        // A share's loops: over the tiles, and twice over the keys of a tile.
        let iterations = u64::from(s.seq_kv) * 3 / 2;
        let least = iterations.div_ceil(caps.max_loop_iterations.into()) as u32;
        let wanted = tuning::split_workgroups(caps);
        Shares { n: least.max(even_shares(wanted, workgroups, s.seq_kv, tile.keys)), keys: 0 }
    };
    in_shares(problem, caps, policy, block, shares, steps).map_err(refuse)
}

/// The steps of a schedule whose shares leave partial results, or why there is no room for those.
pub(super) fn in_shares(
    problem: &Problem,
    caps: &Capabilities,
    policy: &Policy,
    block: BlockSize,
    shares: Shares,
    steps: [Step; 2],
) -> Result<Schedule, String> {
    let (path, shares) = (Path::Split, Some(shares));
    let plan = Schedule { path, steps: steps.into(), block, shares, ..Schedule::empty() };
    let plan = plan.laid_out(problem, caps);
    let limit = caps.max_binding_bytes.min(caps.max_buffer_bytes).min(policy.max_workspace_bytes);
    match plan.scratch_bytes() {
        bytes if bytes > limit => Err(format!("{bytes} B of partial results, allowed {limit}")),
        _ => Ok(plan),
    }
}

/// What keeps a problem from being split.
fn unserved(problem: &Problem) -> Option<String> {
    let a = problem.attention();
    if a.shape.seq_q > MAX_ROWS {
        return Some(format!("{} query rows, at most {MAX_ROWS} are split", a.shape.seq_q));
    }
    let others = [
        (a.weights.is_some(), "scores and weights are written by the staged path only"),
        (a.normalizer.needs_row(), "the normaliser needs the whole row of scores"),
        (a.normalizer.takes_one(), "one key takes all weight, which is not summed"),
        (a.inner.is_sum(), "additive scores are made by the fused and staged paths"),
        (a.masks.edges.is_some(), "a graph's rows have keys of their own"),
        (a.masks.blocks.is_some(), "block tables are visited by the fused path"),
    ];
    others.iter().find(|(on, _)| *on).map(|(_, reason)| (*reason).into())
}

/// Why another path is faster on a device, where one is known to be.
pub(super) fn slower(
    kernel: &KernelSpec,
    problem: &Problem,
    caps: &Capabilities,
    policy: &Policy,
) -> Option<String> {
    let mut shape = problem.attention().shape;
    if policy.batch_invariant {
        // Another path has other bits: what is chosen for one sequence is chosen for many.
        shape.batch = 1;
    }
    tuning::split_is_slower(caps, &shape, &kernel.split_tile()?)
}

/// Shares that bring the workgroups to `wanted`, none of less than a tile.
fn even_shares(wanted: u64, workgroups: u64, seq_kv: u32, keys: u32) -> u32 {
    let most = seq_kv.div_ceil(keys).clamp(1, MAX_SHARES);
    (wanted.div_ceil(workgroups.max(1)) as u32).clamp(1, most)
}
