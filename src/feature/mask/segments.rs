//! Key j is visible to row i iff both have the same segment id: documents packed into one sequence.

use super::{Kind, Mask};
use crate::feature::{Operand, Operands, Position, Slot, slot};
use crate::tensor::{Shape, product};

pub(crate) const SLOT: Slot =
    slot!("mask", "segments").of_data().reading(&[Operand::SegmentsQ, Operand::SegmentsKv]);

/// Segment ids per query row `[batch, seq_q]` and per key `[batch, seq_kv]`, in any order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Segments {}

impl Mask for Segments {
    fn slot(&self) -> Slot {
        SLOT
    }

    fn text(&self) -> String {
        "segments".into()
    }

    fn operands(&self, shape: &Shape) -> Vec<(Operand, u64)> {
        let ids = |seq: u32| product(&[shape.batch, seq]);
        vec![(Operand::SegmentsQ, ids(shape.seq_q)), (Operand::SegmentsKv, ids(shape.seq_kv))]
    }

    fn unpacked(&self) -> Option<&'static str> {
        Some("no segments: packed sequences do not see each other")
    }

    fn keeps(&self, at: &Position, operands: &Operands<'_>, shape: &Shape) -> bool {
        let id = |ids: &[u32], seq: u32, i: u32| ids[at.batch as usize * seq as usize + i as usize];
        id(operands.segments_q, shape.seq_q, at.row)
            == id(operands.segments_kv, shape.seq_kv, at.key)
    }
}

impl Kind for Segments {
    fn examples(_: &Shape) -> Vec<Self> {
        vec![Self {}]
    }
}
