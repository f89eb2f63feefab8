//! Tile shapes as data: the rows that ship, and tables that [`Policy::tuning`](crate::Policy::tuning) brings.
//!
//! `rows` trades loads (each element of k and v feeds `rows` products) against registers (2 · rows · dim f32)
//! and code size; `lanes` trades idle invocations at short sequences and causal blocks against scheduling.

use std::borrow::Cow;

use crate::error::{Error, Result};
use crate::kernel::Repeats;
use crate::plan::Capabilities;

/// What kind of device a row is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum Class {
    /// A driver that runs shaders on the CPU: loads are dear, registers spill to cache, and small
    /// workgroups keep causal blocks small.
    Software,
    /// Anything else.
    Any,
}

/// Shape of the fused kernels' workgroups up to a head dimension.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct FusedRow {
    /// Devices it is for.
    pub class: Class,
    /// Part of the adapter's name, backend and driver, as `heedful info` shows them; empty for every device of
    /// the class.
    pub device: Cow<'static, str>,
    /// Largest head dimension (the larger of dim_qk and dim_v) it is for.
    pub max_dim: u32,
    /// Whether subgroups fetch k and v together.
    pub subgroup: bool,
    /// Query rows per invocation: 1, 2 or 4.
    pub rows: u32,
    /// Invocations per workgroup.
    pub lanes: u32,
}

/// Shape of the tile kernel's workgroups up to a head dimension.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct TileRow {
    /// Devices it is for.
    pub class: Class,
    /// As in [`FusedRow::device`].
    pub device: Cow<'static, str>,
    /// Largest head dimension it is for.
    pub max_dim: u32,
    /// Invocations along the 64 rows: 8 or 16.
    pub down: u32,
    /// Invocations along keys and columns: 8 or 16; or 32 beside 8, for 32 rows and 128 keys.
    pub across: u32,
    /// Keys of a tile: 64 or 128. Fewer where workgroup memory is small.
    pub keys: u32,
    /// How steps over depth and keys are repeated.
    pub repeats: Repeats,
}

/// Shape of the split kernel's workgroups up to a head dimension.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SplitRow {
    /// Devices it is for.
    pub class: Class,
    /// As in [`FusedRow::device`].
    pub device: Cow<'static, str>,
    /// Largest head dimension it is for.
    pub max_dim: u32,
    /// Most rows of a group that share one read of k and v: 1, 2 or 4.
    pub rows: u32,
    /// Invocations per workgroup.
    pub lanes: u32,
    /// Keys of a tile: with those of `key_lanes` that a call has room for, whole rounds of the lanes.
    pub keys: u32,
    /// Most invocations of a subgroup that read a key's row side by side: 1, 2, 4, 8 or 16. Fewer where they do not
    /// share it evenly or subgroups may be smaller.
    #[cfg_attr(feature = "serde", serde(default = "one"))]
    pub key_lanes: u32,
}

#[cfg(feature = "serde")]
fn one() -> u32 {
    1
}

/// Shape of the matrix kernels' workgroups up to a head dimension.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct MatrixRow {
    /// Devices it is for.
    pub class: Class,
    /// As in [`FusedRow::device`].
    pub device: Cow<'static, str>,
    /// Edge of the device's matrices: 8 or 16.
    pub edge: u32,
    /// Largest head dimension it is for.
    pub max_dim: u32,
    /// Teams of a workgroup: subgroups, each with rows of its own. Fewer where rows or workgroup memory are few.
    pub teams: u32,
    /// Blocks of `edge` query rows of a team.
    pub blocks: u32,
    /// Keys of a tile, a multiple of the edge. Fewer where workgroup memory is small.
    pub keys: u32,
    /// Whether steps over matrices are written out.
    pub unrolled: bool,
}

/// A table of tile shapes, tried before the ones that ship: what `heedful tune --out tiles.json` writes, read with
/// `serde`. The first row that fits a call wins.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Tuning {
    /// How the rows came about: adapter, date, figures.
    #[cfg_attr(feature = "serde", serde(default))]
    pub provenance: Vec<String>,
    /// For the fused kernels.
    #[cfg_attr(feature = "serde", serde(default))]
    #[doc(hidden)]
    pub fused: Vec<FusedRow>,
    /// For the tile kernel.
    #[cfg_attr(feature = "serde", serde(default))]
    #[doc(hidden)]
    pub tile: Vec<TileRow>,
    /// For the split kernel.
    #[cfg_attr(feature = "serde", serde(default))]
    #[doc(hidden)]
    pub split: Vec<SplitRow>,
    /// For the matrix kernel.
    #[cfg_attr(feature = "serde", serde(default))]
    #[doc(hidden)]
    pub matrix: Vec<MatrixRow>,
}

impl Tuning {
    /// Checks every row.
    ///
    /// # Errors
    /// Invalid argument naming the row, what was found and what is wanted. Whether a device can run a shape is
    /// decided when a call is planned.
    pub fn validate(&self) -> Result<()> {
        let power = |place: String, n: u32, most: u32| {
            if n.is_power_of_two() && n <= most {
                return Ok(());
            }
            Err(Error::invalid(place, n, format!("a power of two, at most {most}")))
        };
        for (i, row) in self.fused.iter().enumerate() {
            power(format!("tuning: rows of fused row {i}"), row.rows, 4)?;
            power(format!("tuning: lanes of fused row {i}"), row.lanes, 256)?;
        }
        for (i, row) in self.tile.iter().enumerate() {
            let wide = row.across == 32;
            let sizes: [(&str, u32, &[u32]); 3] = [
                ("invocations across", row.across, &[8, 16, 32]),
                ("invocations down", row.down, if wide { &[8] } else { &[8, 16] }),
                ("keys", row.keys, if wide { &[128] } else { &[64, 128] }),
            ];
            for (what, found, allowed) in sizes {
                if !allowed.contains(&found) {
                    let place = format!("tuning: {what} of tile row {i}");
                    let beside = if wide { " beside 32 across" } else { "" };
                    let wanted =
                        allowed.iter().map(u32::to_string).collect::<Vec<_>>().join(" or ");
                    return Err(Error::invalid(place, found, format!("{wanted}{beside}")));
                }
            }
        }
        for (i, row) in self.split.iter().enumerate() {
            power(format!("tuning: rows of split row {i}"), row.rows, 4)?;
            power(format!("tuning: lanes of split row {i}"), row.lanes, 256)?;
            power(format!("tuning: invocations to a key of split row {i}"), row.key_lanes, 16)?;
            let rounds = row.lanes / row.key_lanes.min(row.lanes);
            if row.keys == 0 || !row.keys.is_multiple_of(rounds) || row.keys > 1024 {
                let place = format!("tuning: keys of split row {i}");
                let wanted = format!("a multiple of the {rounds} keys of a round, at most 1024");
                return Err(Error::invalid(place, row.keys, wanted));
            }
        }
        for (i, row) in self.matrix.iter().enumerate() {
            if row.edge != 8 && row.edge != 16 {
                let place = format!("tuning: edge of matrix row {i}");
                return Err(Error::invalid(place, row.edge, "8 or 16"));
            }
            power(format!("tuning: teams of matrix row {i}"), row.teams, 32)?;
            power(format!("tuning: blocks of matrix row {i}"), row.blocks, 8)?;
            power(format!("tuning: keys of matrix row {i}"), row.keys, 128)?;
            if row.keys < row.edge {
                let place = format!("tuning: keys of matrix row {i}");
                return Err(Error::invalid(place, row.keys, format!("at least {}", row.edge)));
            }
        }
        Ok(())
    }
}

/// The class of a device.
pub fn class(caps: &Capabilities) -> Class {
    if caps.device_type == "cpu" { Class::Software } else { Class::Any }
}

/// Whether a row for `row` and `device` is for the device that `caps` describes.
pub(super) fn serves(row: Class, device: &str, caps: &Capabilities) -> bool {
    let named = || format!("{} / {} / {}", caps.name, caps.backend, caps.driver).contains(device);
    (row == Class::Any || row == class(caps)) && (device.is_empty() || named())
}

const fn fused(class: Class, max_dim: u32, subgroup: bool, rows: u32, lanes: u32) -> FusedRow {
    FusedRow { class, device: Cow::Borrowed(""), max_dim, subgroup, rows, lanes }
}

const fn tile(
    class: Class,
    device: &'static str,
    max_dim: u32,
    [down, across, keys]: [u32; 3],
    repeats: Repeats,
) -> TileRow {
    TileRow { class, device: Cow::Borrowed(device), max_dim, down, across, keys, repeats }
}

const fn split(
    class: Class,
    device: &'static str,
    max_dim: u32,
    [rows, lanes, keys, key_lanes]: [u32; 4],
) -> SplitRow {
    SplitRow { class, device: Cow::Borrowed(device), max_dim, rows, lanes, keys, key_lanes }
}

/// Software rows: measured on 2 cores, f32, 1×8×512×dim, GFLOP/s on Mesa 22.3 / 26.2:
/// dim 64, 4 rows: 75 / 85 by subgroups of 8, 25 / 61 without; dim 128, 2 rows: 45 / 55 (4 rows:
/// 38 / 69, at 2.7 times the compile time); dim 256, 1 row: 23 / 33.
/// Other devices: chosen by register count, at most 128 f32 for q and o.
pub(crate) const FUSED: &[FusedRow] = &[
    fused(Class::Software, 64, true, 4, 8),
    fused(Class::Software, 128, true, 2, 8),
    fused(Class::Software, 512, true, 1, 8),
    fused(Class::Software, 64, false, 4, 8),
    fused(Class::Software, 128, false, 2, 8),
    fused(Class::Software, 512, false, 1, 8),
    fused(Class::Any, 32, false, 2, 64),
    fused(Class::Any, 512, false, 1, 64),
];

/// Software rows: loops, which compile many times as fast; the path is not chosen there.
///
/// NVIDIA: one H200, f32, 1x16x4096 by dim, TFLOP/s of 61 that multiply-adds reach; each shape after 0.25 s of its own
/// work, without which some took four times as long. 16 by 8, 8 by 16 and 16 by 16 with 64 keys, 16 by 16 with 128:
/// dim 64 31, 30, 27, 29; dim 128 31, 30, 32, 34; dim 256 33, 31, 23, 25.
///
/// Others by what Mesa 26.2 compiles, not measured (`scripts/gpu-compilers`; where it does not ship, a row changed).
/// 16 by 16 written out at dims 64, 128 and 256 takes 96, 96 and 168 registers on RDNA3 and spills nothing on RDNA3,
/// Ampere and Adreno 740; 0, 0 and 30 on M1, where 32 rows spill nothing at 256. DG2, spills and share of issue slots:
/// written out 86 and 51 % at dim 64, in loops of one step 6 and 42 % at 128, 308 and 38 % at 256; what ships 0 and
/// 48 %, 0 and 46 %, 36 and 50 %.
pub(crate) const TILES: &[TileRow] = &[
    tile(Class::Software, "", 1024, [16, 8, 64], Repeats::Loops),
    tile(Class::Any, "NVIDIA", 64, [16, 8, 64], Repeats::Written),
    tile(Class::Any, "NVIDIA", 128, [16, 16, 128], Repeats::Written),
    tile(Class::Any, "NVIDIA", 256, [16, 8, 64], Repeats::Written),
    tile(Class::Any, "AMD", 64, [16, 8, 64], Repeats::Written),
    tile(Class::Any, "AMD", 128, [8, 16, 64], Repeats::Written),
    tile(Class::Any, "Intel", 64, [16, 16, 64], Repeats::Eights),
    tile(Class::Any, "Intel", 1024, [8, 32, 128], Repeats::Eights),
    tile(Class::Any, "Apple", 128, [16, 16, 64], Repeats::Written),
    tile(Class::Any, "Apple", 1024, [8, 32, 128], Repeats::Eights),
    tile(Class::Any, "Adreno", 256, [16, 16, 64], Repeats::Written),
    tile(Class::Any, "Adreno", 1024, [8, 32, 128], Repeats::Eights),
    tile(Class::Any, "", 1024, [16, 16, 64], Repeats::Written),
];

/// NVIDIA: measured on one H200, us with 128 lanes and 1 to a key, 256 and 128 keys; 8 to a key, 256, 128 and 64 keys:
/// 16x32/8x1x4096x128 f16 161, 190; 124, 134, 151. 1x32/8x1x8192x128 f32 57, 52; 59, 50, 57; with k and v in f16 47,
/// 46; 46, 41, 50. 1x32/8x1x1024x128 f32 40, 35; 43, 34, 33. 1x8x1x8192x64 f32 38, 39; 37, 36, 36.
///
/// Others by what Mesa 26.2 compiles, not measured: 4 rows spill nothing on RDNA3, Ampere, Adreno 740 and M1, 44 on
/// DG2, where 2 spill nothing.
pub(crate) const SPLIT: &[SplitRow] = &[
    split(Class::Software, "", 256, [4, 8, 64, 1]),
    split(Class::Software, "", 576, [2, 8, 64, 1]),
    split(Class::Software, "", 1024, [1, 8, 64, 1]),
    split(Class::Any, "NVIDIA", 128, [4, 128, 128, 8]),
    split(Class::Any, "Intel", 128, [2, 128, 128, 8]),
    split(Class::Any, "", 128, [4, 128, 128, 8]),
    split(Class::Any, "", 576, [2, 128, 128, 8]),
    split(Class::Any, "", 1024, [1, 128, 128, 8]),
];

const fn matrix(
    class: Class,
    device: &'static str,
    edge: u32,
    max_dim: u32,
    [teams, blocks, keys]: [u32; 3],
    unrolled: bool,
) -> MatrixRow {
    MatrixRow { class, device: Cow::Borrowed(device), edge, max_dim, teams, blocks, keys, unrolled }
}

/// Software rows: f16 1×4×256×64 and ×128 on Mesa 26.2, first use without its cache 2.7 and 1.9 s in loops, 7.3 and
/// 19.4 s written out; 10.1 and 17.0 ms, 10.2 and 25.3 ms.
///
/// NVIDIA: one H200, f16, TFLOP/s with 4 teams of 2 blocks, 4 of 1 and 8 of 1: 1x16x4096x64 54, 61, 53; 1x16x4096x128
/// 49, 47, 81; 1x8x512x64 9, 11, 9.
///
/// Others: not measured. Two blocks of rows read k and v half as often as one. What Mesa 26.2 compiles for RDNA3 of 4
/// teams (d64 and d128.f16.matrix of `scripts/gpu-compilers`; the row edited for the other number): at dim 64 neither
/// spills, two blocks in 4669 instructions and one in 2962; at 128 two spill 8 registers in 12250 and have room for 16
/// keys a turn, one spills none in 7002 and has 32.
pub(crate) const MATRIX: &[MatrixRow] = &[
    matrix(Class::Software, "", 8, 512, [4, 1, 16], false),
    matrix(Class::Software, "", 16, 512, [2, 1, 16], false),
    matrix(Class::Any, "NVIDIA", 16, 64, [4, 1, 32], true),
    matrix(Class::Any, "NVIDIA", 16, 128, [8, 1, 32], true),
    matrix(Class::Any, "", 16, 64, [4, 2, 32], true),
    matrix(Class::Any, "", 16, 512, [4, 1, 32], true),
    matrix(Class::Any, "", 8, 128, [4, 2, 32], true),
    matrix(Class::Any, "", 8, 512, [4, 1, 16], true),
];
