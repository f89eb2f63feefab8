//! What weights are multiplied with after they are normalised, beside what masks say of places.

pub mod dropout;

pub use dropout::Dropout;

use super::Slot;

/// The WGSL files.
pub(crate) const SLOTS: &[Slot] = &[dropout::SLOT];
