//! The staged backward pass: what a device cannot bind, and the blocks of rows whose planes fit its scratch.

use crate::error::Rejection;
use crate::kernel::{SUM_TILE, TILE};
use crate::plan::fit::too_many;
use crate::plan::{BlockSize, Capabilities, Policy, turns};
use crate::problem::{BackwardProblem, Operand};

/// What is not served yet.
pub(super) fn lacking(backward: &BackwardProblem, caps: &Capabilities) -> Option<String> {
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
pub(super) fn choose(
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
