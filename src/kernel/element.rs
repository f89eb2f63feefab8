//! How a kernel reads and writes elements, and how the fused kernels lay rows over invocations.

use std::fmt;

use crate::feature::load::{self, Load};
use crate::feature::store::{self, Store};
use crate::tensor::Storage;

/// How many elements one access moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Width {
    /// One at a time: any dimension, stride and offset.
    Single,
    /// Four at a time: dimension, strides and offset are multiples of 4.
    Vec4,
}

/// An operand's element type as a kernel reads or writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Element {
    /// Storage.
    pub storage: Storage,
    /// Through native `f16` rather than packed words.
    pub native_f16: bool,
    /// Elements per access.
    pub width: Width,
}

impl Element {
    /// f32, four at a time.
    pub const F32X4: Self = Self { storage: Storage::F32, native_f16: false, width: Width::Vec4 };

    /// The load slot.
    pub fn load(self) -> Load {
        match (self.storage, self.native_f16) {
            (Storage::F32, _) => load::f32::LOAD,
            (Storage::F16, true) => load::f16::LOAD,
            (Storage::F16, false) => load::f16_packed::LOAD,
            (Storage::Bf16, _) => load::bf16_packed::LOAD,
            (Storage::Int8, _) => load::int8::LOAD,
            (Storage::Int4, _) => load::int4::LOAD,
            (Storage::E4m3 | Storage::E4m3Row, _) => load::e4m3::LOAD,
            (Storage::E5m2 | Storage::E5m2Row, _) => load::e5m2::LOAD,
            (Storage::Mxfp4, _) => load::mxfp4::LOAD,
        }
    }

    /// The store slot; rows with scales are written by a kernel of their own.
    pub fn store(self) -> Store {
        match (self.storage, self.native_f16) {
            (Storage::F16, true) => store::f16::STORE,
            (Storage::F16, false) => store::f16_packed::STORE,
            (Storage::Bf16, _) => store::bf16_packed::STORE,
            _ => store::f32::STORE,
        }
    }

    /// Whether a channel has 8 bits or fewer; most such rows hold scales behind their channels.
    pub fn is_quantised(self) -> bool {
        self.storage.dtype().is_none()
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let packed = if self.storage == Storage::F16 && !self.native_f16 { "p" } else { "" };
        let wide = self.width == Width::Vec4 && !self.is_quantised();
        let width = if wide { "x4" } else { "" };
        write!(f, "{}{packed}{width}", self.storage)
    }
}

/// How a fused row kernel lays rows over invocations, and the head dimensions it is unrolled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RowTile {
    /// Query rows per invocation: 1, 2 or 4.
    pub rows: u32,
    /// Invocations per workgroup.
    pub lanes: u32,
    /// Invocations that fetch k and v together: 1, or a power of two that every subgroup holds.
    pub fetch: u32,
    /// Head dimension of q and k.
    pub dim_qk: u32,
    /// Head dimension of v and o.
    pub dim_v: u32,
    /// Whether the invocations of a workgroup share its rows, each with every `lanes`-th vec4 of them; scores are then
    /// summed over the subgroup. Needs whole shares, and a workgroup that is one subgroup.
    pub wide: bool,
}

impl RowTile {
    /// Query rows of a workgroup.
    pub fn group_rows(&self) -> u32 {
        if self.wide { self.rows } else { self.rows * self.lanes }
    }

    /// vec4s that an invocation holds of a row of `dim` channels.
    pub(super) fn slices(&self, dim: u32) -> u32 {
        if self.wide { dim / 4 / self.lanes } else { dim.div_ceil(4) }
    }

    /// The first channel of the d-th of them, as WGSL.
    pub(super) fn channel(&self, d: u32) -> String {
        if self.wide {
            format!("4u * (slice + {}u)", d * self.lanes)
        } else {
            format!("{}u", 4 * d)
        }
    }
}

/// How `split_forward` lays a group's rows and the keys over invocations, and the head dimensions it is unrolled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SplitTile {
    /// Rows of a group that a workgroup takes: 1, 2 or 4.
    pub rows: u32,
    /// Invocations per workgroup, a power of two.
    pub lanes: u32,
    /// Keys between barriers, a multiple of `lanes` where an invocation has keys of its own.
    pub keys: u32,
    /// Invocations of a subgroup side by side along a key's row: 1, or a power of two that shares its vec4s out evenly.
    pub key_lanes: u32,
    /// Head dimension of q and k.
    pub dim_qk: u32,
    /// Head dimension of v and o.
    pub dim_v: u32,
}

impl SplitTile {
    /// The tile with as many of `key_lanes` as share the vec4s of a key's row out evenly and every subgroup holds.
    pub fn fitted(mut self, subgroup: u32) -> Self {
        let uneven = |lanes: u32| {
            !self.dim_qk.is_multiple_of(4 * lanes) || !self.keys.is_multiple_of(self.lanes / lanes)
        };
        self.key_lanes = self.key_lanes.min(self.lanes).min(subgroup.max(1));
        while self.key_lanes > 1 && uneven(self.key_lanes) {
            self.key_lanes /= 2;
        }
        self
    }

    /// Keys whose rows an invocation asks for before it uses any: as many as keep 8 vec4s on their way.
    pub(super) fn keys_asked(&self) -> u32 {
        let turns = self.keys / (self.lanes / self.key_lanes);
        let words = self.dim_qk / 4 / self.key_lanes;
        let most = (8 / words.max(1)).clamp(1, turns.max(1));
        (1..=most).rev().find(|n| turns.is_multiple_of(*n)).unwrap_or(1)
    }

    /// Invocations side by side along o; the others take other keys.
    pub fn dim_lanes(&self) -> u32 {
        self.dim_v.div_ceil(4).next_power_of_two().min(self.lanes)
    }

    /// Whether q lies in workgroup memory. A driver on the CPU runs 8 invocations as one vector, which shares nothing.
    pub(super) fn shares_q(&self) -> bool {
        self.lanes > 8
    }

    /// Keys whose v an invocation asks for before it uses any. On hardware, where each wait for memory is
    /// long, several.
    pub(super) fn keys_at_once(&self) -> u32 {
        let turns = self.keys / (self.lanes / self.dim_lanes());
        turns.clamp(1, if self.shares_q() { 8 } else { 1 })
    }

    /// vec4s of o that an invocation sums per row.
    pub fn slices(&self) -> u32 {
        self.dim_v.div_ceil(4).div_ceil(self.dim_lanes())
    }

    /// The part of it that the scores' straight-line code depends on.
    pub(super) fn registers(&self) -> RowTile {
        let Self { rows, lanes, dim_qk, dim_v, .. } = *self;
        RowTile { rows, lanes, fetch: 1, dim_qk, dim_v, wide: false }
    }

    /// Bytes of workgroup memory: a vector of rows and two words per key, a vector of rows and a vec4 per
    /// invocation, q.
    pub fn workgroup_bytes(&self) -> u32 {
        let q = if self.shares_q() { 16 * self.rows * self.dim_qk.div_ceil(4) } else { 0 };
        (4 * self.rows + 8) * self.keys + (4 * self.rows + 16) * self.lanes + q
    }
}

impl fmt::Display for SplitTile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}l{}k{}", self.rows, self.lanes, self.keys)?;
        if self.key_lanes > 1 {
            write!(f, "s{}", self.key_lanes)?;
        }
        write!(f, "d{}", self.dim_qk)?;
        if self.dim_v != self.dim_qk { write!(f, "v{}", self.dim_v) } else { Ok(()) }
    }
}

impl fmt::Display for RowTile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wide = if self.wide { "w" } else { "" };
        write!(f, "{wide}r{}l{}f{}d{}", self.rows, self.lanes, self.fetch, self.dim_qk)?;
        if self.dim_v != self.dim_qk { write!(f, "v{}", self.dim_v) } else { Ok(()) }
    }
}

/// How invocations are laid over a row of o and its shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MergeTile {
    /// Invocations side by side along o, a power of two.
    pub columns: u32,
    /// Shares joined at a time, a power of two.
    pub sides: u32,
}

impl MergeTile {
    /// Most invocations: what every device has.
    const LANES: u32 = 256;

    /// For what a tile of `split_forward` leaves. A driver on the CPU gains nothing from waiting for many at once.
    pub fn of_split(split: &SplitTile) -> Self {
        if split.shares_q() { Self::of_few_rows(split.dim_v) } else { Self::of_rows(split.dim_v) }
    }

    /// For a few rows, whose many shares are waited for at once.
    pub fn of_few_rows(dim_v: u32) -> Self {
        let one = Self::of_rows(dim_v);
        Self { sides: Self::LANES / one.columns, ..one }
    }

    /// For many rows: enough to wait for a few shares each.
    pub fn of_rows(dim_v: u32) -> Self {
        Self { columns: dim_v.div_ceil(4).next_power_of_two().min(32), sides: 1 }
    }

    /// Invocations per workgroup.
    pub(super) fn lanes(&self) -> u32 {
        self.columns * self.sides
    }
}

impl fmt::Display for MergeTile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}s{}", self.columns, self.sides)
    }
}
