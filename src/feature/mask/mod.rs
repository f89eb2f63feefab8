//! Masks: predicates that are AND-ed. True means attend.
//!
//! Lengths are not a mask of their own: every kernel knows `kv_len` and `q_len` of a sequence and
//! never looks past them.

pub mod blocks;
pub mod causal;
pub mod chunked;
pub mod dense;
pub mod dilated;
pub mod edges;
pub mod local;
pub mod neighborhood;
pub mod segments;
pub mod window;

pub use blocks::{BlockSparse, Blocks};
pub use causal::Causal;
pub use chunked::Chunked;
pub use dense::Dense;
pub use dilated::Dilated;
pub use edges::Edges;
pub use local::Local;
pub use neighborhood::{Axis, Neighborhood};
pub use segments::Segments;
pub use window::Window;

use std::ops::Range;

use super::{Entry, Operands, Position, Setting, Slot};

/// A mask: its WGSL, its meaning, and the keys it can rule out for a whole row at once.
pub trait Mask {
    /// The WGSL file. Its functions are `fn mask_{name}(p: Position) -> bool` and
    /// `fn mask_{name}_range(rows: Rows, keys: vec2<i32>) -> vec2<i32>`.
    fn slot(&self) -> Slot;
    /// Values of the slot's parameters.
    fn parameters(&self) -> Vec<Setting> {
        Vec::new()
    }
    /// Whether the row may attend to the key.
    fn keeps(&self, at: &Position, operands: &Operands<'_>) -> bool;
    /// Narrows the keys that `row` can attend to; `keys` as it is when the mask is data.
    fn narrow(&self, row: u32, diagonal: i64, keys: Range<i64>) -> Range<i64>;
    /// What the weight of a visible key is multiplied with after it is normalised.
    fn factor(&self, _: &Position, _: &Operands<'_>) -> f64 {
        1.0
    }
    /// The element of a tensor that the factor takes in, and the derivative of the factor by it.
    fn factor_entry(&self, _: &Position, _: &Operands<'_>) -> Option<Entry> {
        None
    }
}
