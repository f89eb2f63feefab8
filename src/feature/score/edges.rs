//! s + edge_bias of the edge between row and key: weights of a graph's edges.

use super::{Score, Stage};
use crate::feature::mask::Edges;
use crate::feature::{Entry, Operand, Operands, Position, Slot, slot};

pub(crate) const SLOT: Slot = slot!("score", "edges").reading(&[Operand::EdgeBias]).unlisted();

/// Adds the bias of the edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EdgeBias;

impl Score for EdgeBias {
    fn stage(&self) -> Stage {
        Stage::Biased
    }

    fn slot(&self) -> Slot {
        SLOT
    }

    /// The edges say it.
    fn text(&self) -> Option<String> {
        None
    }

    fn apply(&self, s: f64, at: &Position, operands: &Operands<'_>) -> f64 {
        match Edges::find(at.row, at.key, operands) {
            Some(edge) => s + operands.edge_bias[edge],
            None => s,
        }
    }

    fn derivative(&self, _: f64, _: &Position, _: &Operands<'_>) -> f64 {
        1.0
    }

    fn entry(&self, at: &Position, operands: &Operands<'_>) -> Option<Entry> {
        let index = Edges::find(at.row, at.key, operands)?;
        Some(Entry { operand: Operand::EdgeBias, index, factor: 1.0 })
    }
}
