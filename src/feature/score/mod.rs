//! Score modifiers: an ordered chain s → s between the product and the masks.
//!
//! A modifier is a file here and one in `shaders/slot/score`: what it is made of, its meaning, its text, its
//! parameters and tensors. From its lines below and its field of [`Attention`](crate::Attention), with its turn in
//! the chain, follow its place in names, kernels, checks and reports.

pub mod alibi;
pub mod bias;
pub(crate) mod bias_bf16;
pub(crate) mod bias_f16;
pub mod edges;
pub mod gumbel;
pub mod key_scale;
pub mod relative;
pub mod scale;
pub mod softcap;

pub use alibi::Alibi;
pub use bias::Bias;
pub use edges::EdgeBias;
pub use gumbel::Gumbel;
pub(crate) use key_scale::KeyScale;
pub use key_scale::KvScales;
pub use relative::Relative;
pub use scale::Scale;
pub use softcap::Softcap;

use super::{Entry, Operand, Operands, Position, Setting, Slot};
use crate::error::Result;
use crate::tensor::Shape;

/// The WGSL files.
pub(crate) const SLOTS: &[Slot] = &[
    scale::SLOT,
    key_scale::SLOT,
    softcap::SLOT,
    bias::SLOT,
    bias_f16::SLOT,
    bias_bf16::SLOT,
    alibi::SLOT,
    edges::SLOT,
    gumbel::SLOT,
    relative::SLOT,
];

/// The stages at which scores can be returned; a modifier belongs to the stage it completes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// After the scale.
    Scaled,
    /// After the softcap.
    Capped,
    /// After bias and ALiBi.
    Biased,
    /// After the noise of a draw; never shown.
    Drawn,
}

/// A score modifier: its place in the chain, its WGSL and its meaning.
pub trait Score {
    /// Which stage of the chain it belongs to.
    fn stage(&self) -> Stage;
    /// The WGSL file; its function is `fn score_{name}(s: f32, p: Position) -> f32`.
    fn slot(&self) -> Slot;
    /// A word for names of cases, plans and messages; `None` where another feature says it.
    fn text(&self) -> Option<String>;
    /// Checks it against the shape of its call.
    ///
    /// # Errors
    /// An invalid-argument error that names what cannot be, what it holds and what it may hold.
    fn validate(&self, _: &Shape) -> Result<()> {
        Ok(())
    }
    /// The tensors that come with it, each with its elements.
    fn operands(&self, _: &Shape) -> Vec<(Operand, u64)> {
        Vec::new()
    }
    /// Values of the slot's parameters.
    fn parameters(&self) -> Vec<Setting> {
        Vec::new()
    }
    /// The meaning: the new score at `at`.
    fn apply(&self, s: f64, at: &Position, operands: &Operands<'_>) -> f64;
    /// The derivative of the new score by the old one.
    fn derivative(&self, s: f64, at: &Position, operands: &Operands<'_>) -> f64;
    /// Whether there is one: the caller's own modifiers may have none.
    fn has_derivative(&self) -> bool {
        true
    }
    /// What the new score has of a tensor that may be learned.
    fn entry(&self, _: &Position, _: &Operands<'_>) -> Option<Entry> {
        None
    }
}
