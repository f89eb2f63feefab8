//! From f32 to stored elements, rounded to nearest even.

pub mod bf16_packed;
pub mod f16;
pub mod f16_packed;
pub mod f32;

use super::Slot;

/// The WGSL files.
pub(crate) const SLOTS: &[Slot] = &[f32::SLOT, f16::SLOT, f16_packed::SLOT, bf16_packed::SLOT];

/// A way to write an element type: the WGSL file and the words it writes.
///
/// The file defines `store_{name}_4(value) -> word4` and `store_{name}_1(value) -> word1`. Where two
/// elements share a 32-bit word (`halves`), single elements are put in place by atomics, since the
/// other half may belong to another invocation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Store {
    /// The WGSL file.
    pub slot: Slot,
    /// WGSL type of four adjacent elements.
    pub word4: &'static str,
    /// WGSL type of a single element (the low half of a `u32` when `halves`).
    pub word1: &'static str,
    /// Whether two elements share a 32-bit word.
    pub halves: bool,
    /// Whether the module needs `enable f16;`.
    pub needs_f16: bool,
}
