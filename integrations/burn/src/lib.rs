//! Attention for [Burn](burn): heedful's kernels on Burn's tensors, in place, on Burn's own device and queue, forward
//! and backward.
//!
//! [`Attend`] is a call on tensors, [`MultiHeadAttention`] and [`GroupedAttention`] are modules around one; [`open`] or
//! [`share`] a device first. What a call can be asked is [`heedful::Attention`]; what its results may be off by is
//! written down there, too.
#![deny(missing_docs)]

mod call;
mod device;
mod error;
mod memory;
mod module;
mod record;
mod track;

/// README's code is compiled with the documentation tests.
#[doc = include_str!("../README.md")]
#[cfg(doctest)]
struct Readme;

pub use call::{Attend, Attended, Given};
pub use device::{engine, open, share};
pub use error::{Error, Result};
pub use heedful;
pub use module::{
    GroupedAttention, GroupedAttentionConfig, MhaInput, MhaOutput, MultiHeadAttention,
};
