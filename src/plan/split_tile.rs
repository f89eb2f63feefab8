//! The split path for rows that fill tiles, those of one head or of all heads of a group: each tile against a share of
//! the keys.

use crate::error::Rejection;
use crate::kernel::{BlockTile, KernelSpec, MergeTile};
use crate::plan::fit::{check_resources, element_of, fitted};
use crate::plan::split::{INVARIANT_KEYS, MAX_ROWS, in_shares};
use crate::plan::steps::{Over, Schedule, Shares, Step};
use crate::plan::{BlockSize, Capabilities, Path, Policy, tile, tuning};
use crate::problem::{Operand, Problem};

/// Fewest keys of a share: a share leaves 8 bytes of partial results for 4 FLOP of each of its keys.
const LEAST_KEYS: u32 = 64;

/// More rows of a head than `split_forward` takes; those of a group together where they fill fewer tiles so.
pub(super) fn schedule(
    problem: &Problem,
    caps: &Capabilities,
    policy: &Policy,
) -> Result<Schedule, Rejection> {
    let refuse = |reason: String| Rejection { candidate: "split_forward_tile".into(), reason };
    let a = problem.attention();
    let s = a.shape;
    if s.seq_q <= MAX_ROWS {
        return Err(refuse(format!("{} query rows, for which there is split_forward", s.seq_q)));
    }
    let tile = tile::tile_of(problem, caps, policy).map_err(refuse)?;
    let [apart, packed] = [false, true].map(|packs| tiles_of_rows(problem, tile.rows, packs));
    on_tiles(problem, caps, policy, tile, packed < apart)
}

/// Few rows of a head, of which those of a group fill a tile: each key is read once for all of them.
pub(super) fn of_groups(
    problem: &Problem,
    caps: &Capabilities,
    policy: &Policy,
) -> Result<Schedule, Rejection> {
    let refuse = |reason: String| Rejection { candidate: "split_forward_group".into(), reason };
    let s = problem.attention().shape;
    if s.seq_q > MAX_ROWS {
        let reason =
            format!("{} query rows: over {MAX_ROWS} are looked at after matrix units", s.seq_q);
        return Err(refuse(reason));
    }
    let tile = tile::tile_of(problem, caps, policy).map_err(refuse)?;
    let rows = rows_of_group(problem);
    if rows < u64::from(tile.rows) {
        return Err(refuse(format!("{rows} rows of a group fill no tile of {}", tile.rows)));
    }
    on_tiles(problem, caps, policy, tile, true)
}

/// Tiles of rows, of each head by itself or of all heads of a group, on shares of the keys.
fn on_tiles(
    problem: &Problem,
    caps: &Capabilities,
    policy: &Policy,
    tile: BlockTile,
    packs_heads: bool,
) -> Result<Schedule, Rejection> {
    let candidate = if packs_heads { "split_forward_group" } else { "split_forward_tile" };
    let refuse = |reason: String| Rejection { candidate: candidate.into(), reason };
    let a = problem.attention();
    let s = a.shape;
    let block = BlockSize::choose(problem, caps, policy, Path::Split)?;
    if block.rows < s.seq_q || block.heads < s.heads_q {
        let BlockSize { heads, rows, .. } = block;
        let reason =
            format!("a binding holds {heads} heads of {rows} rows, all are shared out at once");
        return Err(refuse(reason));
    }
    if a.masks.blocks.is_some() {
        return Err(refuse("block tables are visited by the fused paths".into()));
    }
    let element = |operand| element_of(problem, operand, caps);
    let elements = [Operand::Q, Operand::K, Operand::V].map(element);
    let merge = match s.seq_q > MAX_ROWS {
        true => MergeTile::of_rows(s.dim_v),
        false => MergeTile::of_few_rows(s.dim_v),
    };
    let kernels = [
        KernelSpec::split_tile_forward(problem, elements, tile, packs_heads),
        KernelSpec::split_merge(problem, element(Operand::O), merge),
    ];
    let steps =
        kernels.map(|kernel| Step { kernel: fitted(kernel, problem, 0, caps), over: Over::Block });
    for step in &steps {
        check_resources(&step.kernel, caps)?;
    }
    let keys = if policy.batch_invariant { INVARIANT_KEYS } else { 0 };
    let n = match keys {
        0 => even_shares(tiles_of_rows(problem, tile.rows, packs_heads), s.seq_kv),
        keys => s.seq_kv.div_ceil(keys).max(1),
    };
    in_shares(problem, caps, policy, block, Shares { n, keys }, steps).map_err(refuse)
}

/// Why the tile with all keys is faster on a device, where it is known to be.
pub(super) fn slower(
    kernel: &KernelSpec,
    problem: &Problem,
    caps: &Capabilities,
    policy: &Policy,
) -> Option<String> {
    if policy.batch_invariant {
        return Some("whether shares pay depends on the batch, and rows are not to".into());
    }
    let rows = kernel.group_rows();
    let tiles = tiles_of_rows(problem, rows, kernel.packs_heads());
    let pays = even_shares(tiles, problem.attention().shape.seq_kv) > 1;
    let busy = || format!("{tiles} tiles of {rows} rows keep a device busy without shares");
    tuning::tile_is_slower(caps).or_else(|| (!pays).then(busy))
}

/// Why other kernels are faster for few rows of a group, where one is known to be.
pub(super) fn slower_for_few(
    _: &KernelSpec,
    problem: &Problem,
    caps: &Capabilities,
    _: &Policy,
) -> Option<String> {
    let shape = problem.attention().shape;
    let keys = shape.seq_kv;
    let few = || format!("{keys} keys, below {} sharing them out costs more", 2 * LEAST_KEYS);
    tuning::group_tile_is_slower(caps, &shape).or_else(|| (keys < 2 * LEAST_KEYS).then(few))
}

/// Workgroups of the tile with all keys.
fn tiles_of_rows(problem: &Problem, rows: u32, packs_heads: bool) -> u64 {
    let s = problem.attention().shape;
    let (heads, of_each) = match packs_heads {
        true => (s.heads_kv, rows_of_group(problem)),
        false => (s.heads_q, s.seq_q.into()),
    };
    u64::from(s.batch) * u64::from(heads) * of_each.div_ceil(rows.into())
}

/// Query rows of all heads that share a head of k and v.
fn rows_of_group(problem: &Problem) -> u64 {
    let s = problem.attention().shape;
    u64::from(s.seq_q) * u64::from(s.group())
}

/// Shares that bring so many workgroups to what keeps hardware busy, none of fewer than [`LEAST_KEYS`].
fn even_shares(workgroups: u64, seq_kv: u32) -> u32 {
    let most = seq_kv.div_ceil(LEAST_KEYS).max(1);
    ((tuning::TILE_WORKGROUPS / workgroups.max(1)) as u32).clamp(1, most)
}
