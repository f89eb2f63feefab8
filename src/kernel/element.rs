//! How a kernel reads and writes elements, and how the fused kernels lay rows over invocations.

use std::fmt;

use crate::feature::load::{self, Load};
use crate::feature::store::{self, Store};
use crate::tensor::DType;

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
    /// Storage type.
    pub dtype: DType,
    /// Through native `f16` rather than packed words.
    pub native_f16: bool,
    /// Elements per access.
    pub width: Width,
}

impl Element {
    /// f32, four at a time.
    pub const F32X4: Self = Self { dtype: DType::F32, native_f16: false, width: Width::Vec4 };

    /// The load slot.
    pub fn load(self) -> Load {
        match (self.dtype, self.native_f16) {
            (DType::F32, _) => load::f32::LOAD,
            (DType::F16, true) => load::f16::LOAD,
            (DType::F16, false) => load::f16_packed::LOAD,
            (DType::Bf16, _) => load::bf16_packed::LOAD,
        }
    }

    /// The store slot.
    pub fn store(self) -> Store {
        match (self.dtype, self.native_f16) {
            (DType::F32, _) => store::f32::STORE,
            (DType::F16, true) => store::f16::STORE,
            (DType::F16, false) => store::f16_packed::STORE,
            (DType::Bf16, _) => store::bf16_packed::STORE,
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let packed = if self.dtype == DType::F16 && !self.native_f16 { "p" } else { "" };
        let width = if self.width == Width::Vec4 { "x4" } else { "" };
        write!(f, "{}{packed}{width}", self.dtype)
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
}

impl fmt::Display for RowTile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}l{}f{}d{}", self.rows, self.lanes, self.fetch, self.dim_qk)?;
        if self.dim_v != self.dim_qk { write!(f, "v{}", self.dim_v) } else { Ok(()) }
    }
}
