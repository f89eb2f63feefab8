//! Key j is visible to row i iff it lies before a tree's keys, or is that of node i or of one above it: drafted
//! tokens that are verified at once (SpecInfer: Miao et al., 2024; Medusa: Cai et al., 2024).

use std::ops::Range;

use super::{Kind, Mask};
use crate::feature::align::Align;
use crate::feature::{Operand, Operands, Parameter, Position, Setting, Slot, slot};
use crate::tensor::{Shape, product};

/// Parents between a sequence's table and the next one's; 0 where one serves all.
const STRIDE: Parameter = Parameter::u32("tree_stride");

pub(crate) const SLOT: Slot =
    slot!("mask", "tree", STRIDE).narrowing().reading(&[Operand::Parents]);

/// A tree of rows: each sees all keys before the tree, its own and those of the nodes above it.
///
/// Row i is node i, and its key is i + diagonal: with [`Align::BottomRight`] the last seq_q keys are the tree's.
/// `parents` `[batch, seq_q]` (`[1, seq_q]` where shared) come with the tensors, each less than its node; −1, and
/// what is not less, is no parent, of which there may be several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Tree {
    /// Where the diagonal lies along which nodes have their keys.
    pub align: Align,
    /// Whether one tree serves all sequences.
    #[cfg_attr(feature = "serde", serde(default))]
    pub shared: bool,
}

impl Mask for Tree {
    fn slot(&self) -> Slot {
        SLOT
    }

    fn text(&self) -> String {
        let shared = if self.shared { ",shared" } else { "" };
        format!("tree({}{shared})", self.align)
    }

    fn align(&self) -> Option<Align> {
        Some(self.align)
    }

    fn operands(&self, shape: &Shape) -> Vec<(Operand, u64)> {
        let trees = if self.shared { 1 } else { shape.batch };
        vec![(Operand::Parents, product(&[trees, shape.seq_q]))]
    }

    fn parameters(&self, shape: &Shape) -> Vec<Setting> {
        vec![STRIDE.is(if self.shared { 0 } else { shape.seq_q })]
    }

    fn keeps(&self, at: &Position, operands: &Operands<'_>, shape: &Shape) -> bool {
        let key = i64::from(at.key) - at.diagonal;
        let tree = if self.shared { 0 } else { at.batch as usize * shape.seq_q as usize };
        let mut node = i64::from(at.row);
        while node > key && key >= 0 {
            let parent = i64::from(operands.parents[tree + node as usize]);
            node = if parent < node { parent } else { -1 };
        }
        key < 0 || node == key
    }

    fn narrow(&self, row: u32, diagonal: i64, keys: Range<i64>) -> Range<i64> {
        keys.start..keys.end.min(i64::from(row) + diagonal + 1)
    }
}

impl Kind for Tree {
    fn examples(_: &Shape) -> Vec<Self> {
        vec![
            Self { align: Align::BottomRight, shared: false },
            Self { align: Align::Offset(2), shared: true },
        ]
    }

    fn known(self, _: &Shape) -> Self {
        Self { align: self.align.known(), ..self }
    }
}
