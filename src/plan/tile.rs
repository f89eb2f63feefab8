//! The fused path on a tile of rows and keys: whether it can serve, and the tile.

use crate::error::Rejection;
use crate::kernel::{BlockTile, KernelSpec};
use crate::plan::fit::{element_of, keys_of_rows, too_many};
use crate::plan::fused::over_blocks;
use crate::plan::steps::Schedule;
use crate::plan::{BlockSize, Capabilities, Path, Policy, tuning};
use crate::problem::{Operand, Problem};
use crate::tensor::Shape;

/// The kernel that is a tile of rows and keys.
pub(super) fn schedule(
    problem: &Problem,
    caps: &Capabilities,
    policy: &Policy,
) -> Result<Schedule, Rejection> {
    let refuse = |reason: String| Rejection { candidate: "fused_forward_tile".into(), reason };
    let tile = tile_of(problem, caps, policy).map_err(refuse)?;
    let block = BlockSize::choose(problem, caps, policy, Path::Fused)?;
    let operands = [Operand::Q, Operand::K, Operand::V, Operand::O];
    let elements = operands.map(|operand| element_of(problem, operand, caps));
    let kernel = |table| KernelSpec::fused_tile(problem, elements, tile, table);
    over_blocks(problem, caps, Path::FusedTile, block, tile.rows, kernel)
}

/// The tile of rows and keys that a problem gets, or why it gets none.
pub(super) fn tile_of(
    problem: &Problem,
    caps: &Capabilities,
    policy: &Policy,
) -> Result<BlockTile, String> {
    let a = problem.attention();
    if a.weights.is_some() {
        return Err("scores and weights are written by the staged path only".into());
    }
    if a.normalizer.needs_row() || a.normalizer.takes_one() {
        let name = a.normalizer.name();
        return Err(format!("{name} is not a weighted sum in one pass"));
    }
    if a.inner.is_sum() {
        return Err("additive scores are made by the fused and staged paths".into());
    }
    if a.masks.edges.is_some() {
        return Err("rows of a graph have keys of their own to visit".into());
    }
    let selects = !problem.masks().is_empty() || a.bias.is_some();
    let tile = tuning::block_tile(caps, &a.shape, selects, policy.tuning.as_deref());
    let Some(tile) = tile else {
        return Err(no_tile_fits(&a.shape, caps));
    };
    let iterations = tile_iterations(problem, &tile);
    if iterations > u64::from(caps.max_loop_iterations) {
        return Err(too_many(iterations, caps));
    }
    Ok(tile)
}

/// Why no tile of rows and keys serves head dimensions on a device.
pub(super) fn no_tile_fits(shape: &Shape, caps: &Capabilities) -> String {
    let Shape { dim_qk, dim_v, .. } = shape;
    let Capabilities { max_invocations, max_workgroup_bytes, .. } = caps;
    format!(
        "no tile for head dimensions {dim_qk} and {dim_v} fits {max_invocations} invocations and \
         {max_workgroup_bytes} B of workgroup memory"
    )
}

/// Why the tile is slow on a device, where it is known to be.
pub(super) fn slower(
    _: &KernelSpec,
    _: &Problem,
    caps: &Capabilities,
    _: &Policy,
) -> Option<String> {
    tuning::tile_is_slower(caps)
}

/// Iterations of the tile kernel's loops.
fn tile_iterations(problem: &Problem, tile: &BlockTile) -> u64 {
    let keys = keys_of_rows(problem, tile.rows).saturating_add(tile.keys);
    u64::from(keys.div_ceil(tile.keys)) * u64::from(tile.iterations())
}
