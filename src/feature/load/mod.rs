//! From stored elements to f32, four at a time or one by one.

pub mod bf16_packed;
pub mod e4m3;
pub mod e5m2;
pub mod f16;
pub mod f16_packed;
pub mod f32;
pub mod int4;
pub mod int8;
pub mod mxfp4;

use super::Slot;

/// The WGSL files.
pub(crate) const SLOTS: &[Slot] = &[
    f32::SLOT,
    f16::SLOT,
    f16_packed::SLOT,
    bf16_packed::SLOT,
    int8::SLOT,
    int4::SLOT,
    e4m3::SLOT,
    e5m2::SLOT,
    mxfp4::SLOT,
];

/// A way to read an element type: the WGSL file and the words it reads.
///
/// The file defines `load_{name}_4(word) -> vec4<f32>` over `word4` words, and
/// `load_{name}_1(word, index) -> f32` over `word1` words of `1 << word1_log2` elements.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Load {
    /// The WGSL file.
    pub slot: Slot,
    /// WGSL type of four adjacent elements.
    pub word4: &'static str,
    /// WGSL type that holds single elements.
    pub word1: &'static str,
    /// log2 of the elements in a `word1`.
    pub word1_log2: u32,
    /// Whether the module needs `enable f16;`.
    pub needs_f16: bool,
}
