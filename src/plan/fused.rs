//! The fused row kernels: whether they can serve, and their tile.

use crate::error::Rejection;
use crate::kernel::{BlockTable, KernelSpec, RowTile};
use crate::plan::fit::{check_resources, element_of, fitted, keys_of_rows, too_many};
use crate::plan::steps::Schedule;
use crate::plan::{BlockSize, Capabilities, Classify, Path, Policy, tuning};
use crate::problem::{Operand, Problem};

/// Rows in registers, with or without keys fetched by subgroups.
pub(super) fn schedule(
    problem: &Problem,
    caps: &Capabilities,
    policy: &Policy,
    subgroup: bool,
) -> Result<Schedule, Rejection> {
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
    let edges = problem.attention().masks.edges.is_some();
    if edges && subgroup {
        return Err(refuse("rows of a graph have keys of their own to fetch"));
    }
    let rows = tuning::row_tile(caps, &shape, subgroup, policy.tuning.as_deref());
    // Along edges an invocation has one row: its neighbours visit other keys.
    let rows = rows.map(|tile| if edges { RowTile { rows: 1, wide: false, ..tile } } else { tile });
    let Some(rows) = rows else {
        return Err(refuse(&no_row_tile(caps, subgroup, shape.dim_qk.max(shape.dim_v))));
    };
    let iterations = iterations(problem, &rows);
    if iterations > u64::from(caps.max_loop_iterations) {
        return Err(refuse(&too_many(iterations, caps)));
    }
    let block = BlockSize::choose(problem, caps, policy, Path::Fused)?;
    let operands = [Operand::Q, Operand::K, Operand::V, Operand::O];
    let elements = operands.map(|operand| element_of(problem, operand, caps));
    let kernel = |table| KernelSpec::fused(problem, elements, rows, table);
    over_blocks(problem, caps, Path::Fused, block, rows.group_rows(), kernel)
}

/// Why rows in registers are slow on a device, where they are known to be.
pub(super) fn slower(
    kernel: &KernelSpec,
    _: &Problem,
    caps: &Capabilities,
    _: &Policy,
) -> Option<String> {
    kernel.row_tile().and_then(|rows| tuning::rows_are_slower(caps, &rows))
}

/// A kernel over blocks, with the block table that helps it.
pub(super) fn over_blocks(
    problem: &Problem,
    caps: &Capabilities,
    path: Path,
    block: BlockSize,
    group_rows: u32,
    kernel: impl Fn(Option<BlockTable>) -> KernelSpec,
) -> Result<Schedule, Rejection> {
    let classify = Classify::new(problem, group_rows, &block);
    let given = problem.attention().masks.blocks.map(|_| BlockTable::Given);
    let kernel = kernel(classify.as_ref().map(|_| BlockTable::Classified).or(given));
    let block_words = classify.as_ref().map_or(0, |x| x.blocks.words(&problem.attention().shape));
    let kernel = fitted(kernel, problem, block_words, caps);
    for spec in classify.iter().map(|x| &x.kernel).chain([&kernel]) {
        check_resources(spec, caps)?;
    }
    Ok(Schedule::one(path, kernel, classify, block))
}

/// What keeps a device from having a row tile: [`tuning::row_tile`] looks at these in turn.
fn no_row_tile(caps: &Capabilities, subgroup: bool, dim: u32) -> String {
    let [low, high] = caps.subgroup_size;
    let most = tuning::FUSED.iter().map(|row| row.max_dim).max().unwrap_or(0);
    match (subgroup, caps.subgroups) {
        _ if dim > most => {
            format!("a row of {dim} channels is not kept in registers, at most {most} are")
        }
        (true, false) => "needs subgroup operations, which the device lacks".into(),
        (true, true) if low < 4 => {
            format!("needs subgroups of at least 4, those of the device have {low} to {high}")
        }
        _ => format!("no tile is tuned for it on devices of type {}", caps.device_type),
    }
}

/// Iterations of a fused kernel's loops over the keys of one row: one a key, and three for each stretch of keys
/// that lie side by side.
fn iterations(problem: &Problem, tile: &RowTile) -> u64 {
    let a = problem.attention();
    let keys = keys_of_rows(problem, tile.rows * tile.lanes);
    let pages = a.paged.map_or(1, |paged| keys.div_ceil(paged.page_size.max(1)));
    let blocks = a.masks.blocks.map_or(1, |blocks| keys.div_ceil(blocks.keys.max(1)));
    u64::from(keys) + 3 * u64::from(pages) + 3 * u64::from(blocks)
}
