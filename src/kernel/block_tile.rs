//! How `fused_forward_tile` lays a block of rows and keys over invocations, and the head dimensions it is unrolled for.

use std::fmt;

/// Rows and columns of the register-blocked tile (`shaders/common/tile.wgsl`).
pub const TILE: u32 = 64;

/// Depth of a group of staged q or k: with 64 rows or keys, one block of workgroup memory per four channels.
const DEPTH: u32 = 16;

/// vec4s of a block of workgroup memory: four depths of 64 rows, keys or columns.
const BLOCK: u32 = 64;

/// Keys whose weights lie in workgroup memory at a time.
pub(super) const PART: u32 = 32;

/// Most blocks of workgroup memory: 16 KiB, which every device has.
const BLOCKS: u32 = 16;

/// Shape of the tile kernels' workgroups: `rows` rows by `keys` keys, whose scores and outputs are blocks of each
/// invocation's registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockTile {
    /// Rows, which are keys where these are owned: [`TILE`], or half of it.
    pub rows: u32,
    /// Invocations along the rows: 8 or 16. Each has 8 or 4 rows.
    pub down: u32,
    /// Invocations along keys and columns: 8, 16 or 32.
    pub across: u32,
    /// Keys between looks at the rows' maxima: 64 or 128.
    pub keys: u32,
    /// Channels of q and k that lie in workgroup memory at a time: 16 or 32.
    pub depth: u32,
    /// Keys of v that lie in workgroup memory at a time: 4, 8 or 16.
    pub keys_v: u32,
    /// Head dimension of q and k.
    pub dim_qk: u32,
    /// Head dimension of v and o.
    pub dim_v: u32,
    /// How steps over depth and keys are repeated.
    pub repeats: Repeats,
}

/// How steps over depth and keys of a tile are repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum Repeats {
    /// Written out.
    Written,
    /// In loops, which software drivers compile many times as fast, and compilers of GPUs may write out.
    Loops,
    /// In loops of eight steps a turn, which compilers leave loops: they are not told how many turns there are.
    Eights,
}

impl BlockTile {
    /// Whether steps are written out.
    pub fn is_written(&self) -> bool {
        self.repeats == Repeats::Written
    }

    /// Whether loops stay loops.
    pub(super) fn keeps_loops(&self) -> bool {
        self.repeats == Repeats::Eights
    }

    /// Invocations per workgroup.
    pub fn lanes(&self) -> u32 {
        self.down * self.across
    }

    /// Strips of four rows of an invocation.
    pub(super) fn strips(&self) -> u32 {
        self.rows / 4 / self.down
    }

    /// Scores of a row that an invocation has.
    pub(super) fn keys_each(&self) -> u32 {
        self.keys / self.across
    }

    /// vec4s of columns that an invocation has of a row of o.
    pub fn columns_each(&self) -> u32 {
        self.dim_v.max(1).div_ceil(4).div_ceil(self.across)
    }

    /// vec4s between keys of v in workgroup memory.
    pub(super) fn stride_v(&self) -> u32 {
        self.columns_each() * self.across
    }

    /// The same for products and sums of rows of `dim` channels.
    pub(crate) fn of_dim(&self, dim: u32) -> Self {
        Self { dim_qk: dim, dim_v: dim, ..*self }
    }

    /// Groups of 64 rows or keys by [`DEPTH`] channels: those of q and all. Where rows are 32, half of a group of q
    /// repeats the last of them.
    pub(super) fn groups(&self) -> [u32; 2] {
        let deep = self.depth / DEPTH;
        [deep, deep * (1 + self.keys / TILE)]
    }

    /// Iterations of an invocation's loops in one tile.
    pub fn iterations(&self) -> u32 {
        let steps = |n: u32, turns: u32| match self.repeats {
            Repeats::Written => 1,
            Repeats::Eights => 1 + turns,
            Repeats::Loops => 1 + n,
        };
        let products =
            self.dim_qk.max(1).div_ceil(self.depth) * steps(self.depth, self.depth.div_ceil(8));
        // Where some value is not finite, keys are gone through one by one.
        let sums = self.keys / self.keys_v * steps(self.keys_v, self.keys_v) + self.keys / PART;
        1 + products + sums + 2 * self.keys_each() + self.across / 4
    }

    /// The first block of the weights, behind those of v.
    pub(super) fn weights_at(&self) -> u32 {
        (self.keys_v * self.stride_v()).div_ceil(BLOCK)
    }

    /// The first block of the parts of rows' peaks: behind those of q and k where there is room, or else over
    /// them, which takes a barrier.
    pub(super) fn peaks_at(&self) -> (u32, bool) {
        let behind = 4 * self.groups()[1];
        if behind + self.across / 4 <= BLOCKS { (behind, false) } else { (4, true) }
    }

    /// Blocks of workgroup memory: q and k, or v and weights, or parts of peaks.
    pub(super) fn blocks(&self) -> u32 {
        let peaks = self.peaks_at().0 + self.across / 4;
        (4 * self.groups()[1]).max(self.weights_at() + PART / 4).max(peaks)
    }

    /// Bytes of workgroup memory: the blocks, and a flag where v is looked at.
    pub fn workgroup_bytes(&self, selects: bool) -> u32 {
        self.blocks() * BLOCK * 16 + if selects { 16 } else { 0 }
    }
}

impl fmt::Display for BlockTile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rows, down, across, keys, depth, keys_v, dim_qk, dim_v, repeats } = *self;
        write!(f, "b{down}x{across}k{keys}c{depth}v{keys_v}d{dim_qk}")?;
        if dim_v != dim_qk {
            write!(f, "v{dim_v}")?;
        }
        if rows != TILE {
            write!(f, "r{rows}")?;
        }
        f.write_str(match repeats {
            Repeats::Written => "u",
            Repeats::Loops => "",
            Repeats::Eights => "e",
        })
    }
}
