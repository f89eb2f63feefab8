//! Key j is visible to row i iff both have the same segment id: documents packed into one sequence.

use std::ops::Range;

use super::Mask;
use crate::feature::{Operand, Operands, Position, Slot, slot};
use crate::tensor::Shape;

pub(crate) const SLOT: Slot =
    slot!("mask", "segments").of_data().reading(&[Operand::SegmentsQ, Operand::SegmentsKv]);

/// Segment ids per query row `[batch, seq_q]` and per key `[batch, seq_kv]`, in any order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Segments(pub Shape);

impl Mask for Segments {
    fn slot(&self) -> Slot {
        SLOT
    }

    fn keeps(&self, at: &Position, operands: &Operands<'_>) -> bool {
        let id = |ids: &[u32], seq: u32, i: u32| ids[at.batch as usize * seq as usize + i as usize];
        id(operands.segments_q, self.0.seq_q, at.row)
            == id(operands.segments_kv, self.0.seq_kv, at.key)
    }

    fn narrow(&self, _: u32, _: i64, keys: Range<i64>) -> Range<i64> {
        keys
    }
}
