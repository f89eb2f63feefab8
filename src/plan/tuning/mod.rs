//! Which tile a kernel gets on a device: the first row of a table that fits, and rules for when a kernel pays.

mod gradients;
mod table;

#[doc(inline)]
pub use crate::kernel::Repeats;
#[doc(hidden)]
pub use table::class;
pub use table::{Class, FusedRow, MatrixRow, SplitRow, TileRow, Tuning};
pub(crate) use table::{FUSED, MATRIX, SPLIT, TILES};

use crate::kernel::{BlockTile, MatrixTile, RowTile, SplitTile, TILE};
use crate::plan::Capabilities;
use crate::tensor::Shape;
pub(super) use gradients::Apart;
use gradients::{GRADIENTS, GradientRow};
use table::serves;

/// Most f32 registers a row may take on hardware before its kernel spills; software spills to cache anyway.
const MAX_ROW_REGISTERS: u32 = 160;

/// Why a row tile is slow on a device, where it is known to be: q and o of one row do not fit its registers.
pub(crate) fn rows_are_slower(caps: &Capabilities, tile: &RowTile) -> Option<String> {
    let registers = tile.rows * (tile.dim_qk + tile.dim_v);
    let spills = class(caps) != Class::Software && registers > MAX_ROW_REGISTERS;
    spills.then(|| format!("{registers} f32 registers of an invocation spill here"))
}

/// Why gradients of rows and keys in registers are slow on a device, where they are known to be: 4 channels that are
/// read feed 4 multiply-adds a row, and k, v and their gradients do not fit an invocation's registers (RDNA3, which has
/// most: no spills at dim 32, 109 at 64, 1181 at 128; `benches/record/compilers`).
pub(crate) fn gradients_are_slower(caps: &Capabilities) -> Option<String> {
    (class(caps) != Class::Software)
        .then(|| "products on tiles read a fraction of what rows in registers do".to_owned())
}

/// The first row for gradients on tiles that fits.
fn gradient_row(caps: &Capabilities, shape: &Shape) -> Option<&'static GradientRow> {
    let dim = shape.dim_qk.max(shape.dim_v);
    let fits = |row: &&GradientRow| dim <= row.max_dim && serves(row.class, row.device, caps);
    GRADIENTS.iter().find(fits)
}

/// Why gradients on tiles are slow on a device, where they are known to be.
pub(crate) fn gradient_tiles_are_slower(caps: &Capabilities, shape: &Shape) -> Option<String> {
    let dim = shape.dim_qk.max(shape.dim_v);
    let spills = gradient_row(caps, shape).is_some_and(|row| !row.fits);
    let reason = || format!("an invocation's registers spill at head dimension {dim} here");
    tile_is_slower(caps).or_else(|| spills.then(reason))
}

/// Which gradients on tiles have kernels of their own.
pub(crate) fn gradients_apart(caps: &Capabilities, shape: &Shape) -> Apart {
    gradient_row(caps, shape).map_or(Apart::Nothing, |row| row.apart)
}

/// The tile of the fused backward pass, as [`block_tile`] has that of the forward one: the first row of its own table.
pub(crate) fn gradient_block_tile(
    caps: &Capabilities,
    shape: &Shape,
    selects: bool,
) -> Option<BlockTile> {
    let dim = shape.dim_qk.max(shape.dim_v);
    let GradientRow { shape: [down, across, keys], repeats, .. } = *gradient_row(caps, shape)?;
    let base = BlockTile {
        rows: rows_of(across),
        down,
        across,
        keys,
        depth: 0,
        keys_v: 0,
        dim_qk: dim,
        dim_v: dim,
        repeats,
    };
    let tile = cut(base, caps, selects)?;
    Some(BlockTile { dim_qk: shape.dim_qk, dim_v: shape.dim_v, ..tile })
}

/// How rows and keys of the fused backward pass lie over invocations; `None` where they are not kept in registers. f32
/// on Mesa 22.3 with subgroup fetches, ms with 1, 2 and 4 a lane: 1x8x256x64 16.7, 15.6, 9.5; 1x8/2x256x128 46, 38, 40
/// (and 2.6, 8, 25 s to compile); 12x12x64x32 11.3, 13.4, 8.7.
pub(crate) fn gradient_tile(caps: &Capabilities, shape: &Shape) -> Option<RowTile> {
    let dim = shape.dim_qk.max(shape.dim_v);
    let (rows, lanes) = match class(caps) {
        Class::Software if dim <= 64 => (4, 8),
        Class::Software if dim <= 128 => (2, 8),
        Class::Software => (1, 8),
        Class::Any => (1, 64),
    };
    let software = class(caps) == Class::Software;
    let fetch = if software { fetch_of(caps, lanes).unwrap_or(1) } else { 1 };
    let (dim_qk, dim_v) = (shape.dim_qk, shape.dim_v);
    (dim <= MAX_OWN_DIM).then_some(RowTile { rows, lanes, fetch, dim_qk, dim_v, wide: false })
}

/// Why the tile kernel is slow on a device, where it is known to be: software drivers take turns at barriers,
/// and rows in registers need none.
#[doc(hidden)]
pub fn tile_is_slower(caps: &Capabilities) -> Option<String> {
    (class(caps) == Class::Software)
        .then(|| "invocations that wait for each other take turns on a CPU".to_owned())
}

/// Why few rows of a group are no tile on a device, where `split_forward` is known to be faster. At head dimensions 576
/// and 512 the tile of 32 rows by 128 keys spills 384 registers on DG2 and 53 on M1, `split_forward` none; RDNA3,
/// Ampere and Adreno 740 spill none with theirs (`scripts/gpu-compilers`; the first two by asking for the path).
pub(crate) fn group_tile_is_slower(caps: &Capabilities, shape: &Shape) -> Option<String> {
    let few_registers = ["Intel", "Apple"].iter().any(|name| serves(Class::Any, name, caps));
    let spills = few_registers && shape.dim_v > 256;
    let reason = || format!("a tile's rows of {} columns spill here", shape.dim_v);
    tile_is_slower(caps).or_else(|| spills.then(reason))
}

/// The tile of the tile kernel, by the caller's table or the one that ships, cut to the device's workgroups;
/// `None` where even the smallest is too large. `selects` says whether v is looked at.
#[doc(hidden)]
pub fn block_tile(
    caps: &Capabilities,
    shape: &Shape,
    selects: bool,
    tuning: Option<&Tuning>,
) -> Option<BlockTile> {
    let dim = shape.dim_qk.max(shape.dim_v);
    let fits = |row: &&TileRow| dim <= row.max_dim && serves(row.class, &row.device, caps);
    let own = tuning.and_then(|tuning| tuning.tile.iter().find(fits));
    let TileRow { down, across, keys, repeats, .. } = *own.or_else(|| TILES.iter().find(fits))?;
    let (rows, dim_qk, dim_v) = (rows_of(across), shape.dim_qk, shape.dim_v);
    let base = BlockTile { rows, down, across, keys, depth: 0, keys_v: 0, dim_qk, dim_v, repeats };
    cut(base, caps, selects)
}

/// Rows of a tile: half as many where 32 invocations share each, so that it has as many pairs.
fn rows_of(across: u32) -> u32 {
    if across > 16 { TILE / 2 } else { TILE }
}

/// The largest tile of a shape that fits the device's workgroups: with fewer keys, and chunks of them and of channels.
fn cut(shape: BlockTile, caps: &Capabilities, selects: bool) -> Option<BlockTile> {
    // Invocations take keys in fours.
    let keys = [128, 64].into_iter().filter(|keys| (4 * shape.across..=shape.keys).contains(keys));
    let chunks = [(32, 16), (32, 8), (32, 4), (16, 16), (16, 8), (16, 4)];
    let mut tiles = keys
        .flat_map(|keys| chunks.map(|(depth, keys_v)| BlockTile { keys, depth, keys_v, ..shape }));
    let limit = caps.max_workgroup_bytes.min(MAX_TILE_BYTES);
    tiles.find(|tile| {
        // Each invocation of 256 stages four rows or keys of four channels at once, and so does each of 128
        // half as deep.
        let all_stage = tile.depth == 16 || tile.lanes() == 256 && tile.keys == TILE;
        let fits = tile.workgroup_bytes(selects) <= limit && tile.lanes() <= caps.max_invocations;
        all_stage && fits
    })
}

/// Most workgroup memory of a tile: 16 KiB and a flag. More keeps fewer workgroups on a core.
const MAX_TILE_BYTES: u32 = (16 << 10) + 16;

/// Above this head dimension rows are shared by the invocations of a workgroup, where subgroups can sum: the code is as
/// many times shorter.
const MAX_OWN_DIM: u32 = 256;

/// Widest group that fetches together: more would need subgroups that many adapters lack.
const MAX_FETCH: u32 = 8;

/// The row tile for a shape, with or without subgroup fetches, by the caller's table or the one that ships;
/// `None` when neither has a row or the device has no subgroups that are large enough.
#[doc(hidden)]
pub fn row_tile(
    caps: &Capabilities,
    shape: &Shape,
    subgroup: bool,
    tuning: Option<&Tuning>,
) -> Option<RowTile> {
    let dim = shape.dim_qk.max(shape.dim_v);
    let fits = |row: &&FusedRow| {
        row.subgroup == subgroup && dim <= row.max_dim && serves(row.class, &row.device, caps)
    };
    let own = tuning.and_then(|tuning| tuning.fused.iter().find(fits));
    let tuned = own.or_else(|| FUSED.iter().find(fits))?;
    let fetch = if subgroup { fetch_of(caps, tuned.lanes)? } else { 1 };
    let shares = [shape.dim_qk, shape.dim_v].iter().all(|dim| dim.is_multiple_of(4 * fetch));
    if class(caps) == Class::Software && subgroup && dim > MAX_OWN_DIM && shares {
        let (dim_qk, dim_v) = (shape.dim_qk, shape.dim_v);
        let rows = shape.seq_q.clamp(1, 4).next_power_of_two();
        return Some(RowTile { rows, lanes: fetch, fetch, dim_qk, dim_v, wide: true });
    }
    // Few query rows: more per invocation would be computed for nothing. 1x8x1x1024x64 f32 on Mesa 22.3 / 26.2:
    // 4 rows 1.03 / 0.79 ms, 1 row 0.56 / 0.46.
    let needed = shape.seq_q.div_ceil(tuned.lanes).max(1).next_power_of_two();
    Some(RowTile {
        rows: tuned.rows.min(needed),
        lanes: tuned.lanes,
        fetch,
        dim_qk: shape.dim_qk,
        dim_v: shape.dim_v,
        wide: false,
    })
}

/// Whether native f16 is faster than unpacking words in integers. Software drivers convert it one value at a time.
/// Fused, 1×8×512×64 f16 on Mesa 26.2: native 10.6 ms and 3.3 s to compile, unpacked 7.7 ms and 0.5 s.
pub(crate) fn prefers_native_f16(caps: &Capabilities) -> bool {
    class(caps) != Class::Software
}

/// Why splitting the keys does not pay, where it does not: the fused kernel reads k and v once per head, the
/// split one once per tile of a group's rows. f32, 1xHx1x8192x64 with one head, GB/s of k and v on Mesa 22.3 / 26.2:
/// fused 3.9 / 4.9, split 7.4 / 13; 1x32/8x1x8192x128: 1.5 / 1.7 and 4.4 / 4.6. With 4 and 16 rows of 8 heads and no
/// groups split takes 1.6 and 4 times as long.
pub(crate) fn split_is_slower(
    caps: &Capabilities,
    shape: &Shape,
    tile: &SplitTile,
) -> Option<String> {
    let software = caps.device_type == "cpu";
    let blocks = (shape.group() * shape.seq_q).div_ceil(tile.rows);
    let fewest = if shape.group() > 1 { 128 } else { 1024 };
    let heads = u64::from(shape.batch) * u64::from(shape.heads_q);
    let idle = heads < if software { 4 } else { 256 };
    if shape.seq_kv < 128 || (!idle && shape.seq_kv < fewest) {
        return Some(format!(
            "{} keys, below {fewest} one workgroup per head is faster",
            shape.seq_kv
        ));
    }
    let reads_less = blocks < shape.group() || shape.seq_q == 1;
    let pays = reads_less || (idle && shape.seq_q <= 4);
    (!pays)
        .then(|| format!("k and v would be read {blocks} times, by heads {} times", shape.group()))
}

/// Workgroups of the tile kernel that keep hardware busy: with half as many or fewer the keys are shared out. One H200,
/// f32, us with all keys and with shares of them: 1x8x256x64 58, 39; 1x8x512x64 103, 55; 1x8x1024x64 175, 121; 64 rows
/// against 8192 keys 1239, 86; 1x8x2048x64, 256 workgroups, 345, 395.
pub(crate) const TILE_WORKGROUPS: u64 = 384;

/// Workgroups that keep a device busy: a few for each of a CPU's cores, thousands of small ones for hardware.
pub(crate) fn split_workgroups(caps: &Capabilities) -> u64 {
    if caps.device_type == "cpu" { 8 } else { 1024 }
}

/// The tile of the split kernel, by the caller's table or the one that ships.
#[doc(hidden)]
pub fn split_tile(caps: &Capabilities, shape: &Shape, tuning: Option<&Tuning>) -> SplitTile {
    let packed = (shape.group() * shape.seq_q).max(1).next_power_of_two();
    let dim = shape.dim_qk.max(shape.dim_v);
    let fits = |row: &&SplitRow| dim <= row.max_dim && serves(row.class, &row.device, caps);
    let own = tuning.and_then(|tuning| tuning.split.iter().find(fits));
    let tuned = own.or_else(|| SPLIT.iter().find(fits));
    let [rows, lanes, keys, key_lanes] =
        tuned.map_or([1, 64, 64, 1], |row| [row.rows, row.lanes, row.keys, row.key_lanes]);
    let rows = packed.min(rows);
    let (dim_qk, dim_v) = (shape.dim_qk, shape.dim_v);
    let subgroup = if caps.subgroups { caps.subgroup_size[0] } else { 1 };
    SplitTile { rows, lanes, keys, key_lanes, dim_qk, dim_v }.fitted(subgroup)
}

/// The tile of the matrix kernel, by the caller's table or the one that ships, cut to the device's workgroups; `None`
/// where the device lists no matrices that WGSL can name, or even the smallest tile is too large.
#[doc(hidden)]
pub fn matrix_tile(
    caps: &Capabilities,
    shape: &Shape,
    tuning: Option<&Tuning>,
) -> Option<MatrixTile> {
    let edge = caps.matrix_edge()?;
    let dim = shape.dim_qk.max(shape.dim_v);
    let fits = |row: &&MatrixRow| {
        row.edge == edge && dim <= row.max_dim && serves(row.class, &row.device, caps)
    };
    let own = tuning.and_then(|tuning| tuning.matrix.iter().find(fits));
    let tuned = own.or_else(|| MATRIX.iter().find(fits))?;
    let team = matrix_team(caps, edge)?;
    let blocks = tuned.blocks.min(team / edge);
    let needed = shape.seq_q.div_ceil(blocks * edge).max(1).next_power_of_two();
    let mut tile = MatrixTile {
        edge,
        team,
        teams: tuned.teams.min(needed),
        blocks,
        keys: tuned.keys,
        dim_qk: shape.dim_qk,
        dim_v: shape.dim_v,
        vectors: caps.backend != "metal",
        unrolled: tuned.unrolled,
    };
    loop {
        let small = tile.workgroup_bytes() <= caps.max_workgroup_bytes;
        if small && tile.lanes() <= caps.max_invocations {
            // Each of the invocations that share a row has keys of its own.
            return tile.keys.is_multiple_of(tile.parts()).then_some(tile);
        }
        if !small && tile.keys > edge {
            tile.keys /= 2;
        } else if tile.teams > 1 {
            tile.teams /= 2;
        } else {
            return None;
        }
    }
}

/// The 64 x 64 tile of the staged path and of projections on matrix units: each of its teams has as many rows as
/// invocations. `None` where the device lists no matrices that WGSL can name, or its subgroups are not between them and
/// the tile.
#[doc(hidden)]
pub fn square_tile(caps: &Capabilities) -> Option<MatrixTile> {
    let edge = caps.matrix_edge()?;
    let team = matrix_team(caps, edge).filter(|team| *team <= TILE)?;
    let [teams, blocks] = [TILE / team, team / edge];
    let vectors = caps.backend != "metal";
    let unrolled = class(caps) != Class::Software;
    let [keys, dim_qk, dim_v] = [TILE, TILE, TILE];
    Some(MatrixTile { edge, team, teams, blocks, keys, dim_qk, dim_v, vectors, unrolled })
}

/// Invocations of a team: the largest subgroup. wgpu reports 4 to 64 for every Metal device; those with matrix units
/// have 32.
fn matrix_team(caps: &Capabilities, edge: u32) -> Option<u32> {
    let team = if caps.backend == "metal" { 32 } else { caps.subgroup_size[1] };
    (team.is_power_of_two() && team >= edge).then_some(team)
}

/// The largest power of two that every subgroup of the device holds, up to [`MAX_FETCH`].
fn fetch_of(caps: &Capabilities, lanes: u32) -> Option<u32> {
    let smallest = caps.subgroup_size[0].min(lanes).min(MAX_FETCH);
    (caps.subgroups && smallest >= 4).then(|| 1 << smallest.ilog2())
}
