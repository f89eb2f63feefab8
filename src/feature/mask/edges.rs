//! Key j is visible to row i iff there is an edge between them: graph attention over compressed rows.
//!
//! The keys of row i are `edge_keys[edge_starts[i]..edge_starts[i + 1]]`, ascending, the same for every
//! sequence and head. The fused path visits edges only, so work is proportional to them; the
//! staged path looks each pair up.

use super::{Kind, Mask};
use crate::error::{Error, Result};
use crate::feature::{Operand, Operands, Parameter, Position, Setting, Slot, slot};
use crate::tensor::Shape;

/// Edges of the graph.
const COUNT: Parameter = Parameter::u32("edge_count");

pub(crate) const SLOT: Slot = slot!("mask", "edges", COUNT).titled("graph edges");

/// A graph from query rows (destinations) to keys (sources).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Edges {
    /// Edges.
    pub count: u32,
    /// Whether a bias per edge, `edge_bias` `[count]`, is added to scores.
    #[cfg_attr(feature = "serde", serde(default))]
    pub bias: bool,
}

impl Edges {
    /// The edge from a row to a key.
    pub(crate) fn find(row: u32, key: u32, operands: &Operands<'_>) -> Option<usize> {
        let start = |i: u32| operands.edge_starts.get(i as usize).copied().unwrap_or(0) as usize;
        let (first, end) = (start(row), start(row + 1));
        let keys = operands.edge_keys.get(first..end)?;
        keys.binary_search(&key).ok().map(|i| first + i)
    }

    /// Compressed rows `(edge_starts, edge_keys)` of (key, row) pairs in any order, and for each edge in
    /// that order its place in the list.
    ///
    /// # Errors
    /// Invalid argument when an end is out of range, or when an edge is there twice.
    pub fn rows(
        pairs: &[[u32; 2]],
        seq_q: u32,
        seq_kv: u32,
    ) -> Result<(Vec<u32>, Vec<u32>, Vec<u32>)> {
        if let Some([key, row]) = pairs.iter().find(|[key, row]| *key >= seq_kv || *row >= seq_q) {
            let wanted = format!("key below {seq_kv}, row below {seq_q}");
            return Err(Error::invalid("edges", format!("({key}, {row})"), wanted));
        }
        let mut order: Vec<u32> = (0..pairs.len() as u32).collect();
        let place = |i: &u32| {
            let [key, row] = pairs[*i as usize];
            (row, key)
        };
        order.sort_unstable_by_key(place);
        if let Some(twice) = order.windows(2).find(|pair| place(&pair[0]) == place(&pair[1])) {
            let (row, key) = place(&twice[0]);
            return Err(Error::invalid("edges", format!("({key}, {row}) twice"), "each edge once"));
        }
        let mut starts = vec![0; seq_q as usize + 1];
        pairs.iter().for_each(|[_, row]| starts[*row as usize + 1] += 1);
        for i in 0..seq_q as usize {
            starts[i + 1] += starts[i];
        }
        let keys = order.iter().map(|i| pairs[*i as usize][0]).collect();
        Ok((starts, keys, order))
    }
}

impl Mask for Edges {
    fn slot(&self) -> Slot {
        SLOT
    }

    fn text(&self) -> String {
        format!("edges({}{})", self.count, if self.bias { ",bias" } else { "" })
    }

    fn validate(&self, _: &Shape) -> Result<()> {
        if self.count <= 1 << 24 {
            return Ok(());
        }
        Err(Error::invalid("edges", self.count, "at most 2^24 edges"))
    }

    fn unpacked(&self) -> Option<&'static str> {
        Some("none, or sequences that are not packed")
    }

    fn operands(&self, shape: &Shape) -> Vec<(Operand, u64)> {
        let count = u64::from(self.count);
        let starts = (Operand::EdgeStarts, u64::from(shape.seq_q) + 1);
        let bias = self.bias.then_some((Operand::EdgeBias, count));
        [starts, (Operand::EdgeKeys, count)].into_iter().chain(bias).collect()
    }

    fn parameters(&self, _: &Shape) -> Vec<Setting> {
        vec![COUNT.is(self.count)]
    }

    fn keeps(&self, at: &Position, operands: &Operands<'_>, _: &Shape) -> bool {
        Self::find(at.row, at.key, operands).is_some()
    }
}

impl Kind for Edges {
    fn examples(shape: &Shape) -> Vec<Self> {
        [false, true].map(|bias| Self { count: shape.seq_q.saturating_mul(2), bias }).to_vec()
    }

    /// Three keys for each row.
    fn known(self, shape: &Shape) -> Self {
        Self { count: shape.seq_q.saturating_mul(3), ..self }
    }
}
