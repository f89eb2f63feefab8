//! Key j is visible to row i iff there is an edge between them: graph attention over compressed rows.
//!
//! The keys of row i are `edge_keys[edge_starts[i]..edge_starts[i + 1]]`, ascending, the same for every
//! sequence and head. The fused path visits edges only, so work is proportional to them; the
//! staged path looks each pair up.

use std::ops::Range;

use super::Mask;
use crate::error::{Error, Result};
use crate::feature::{Operands, Parameter, Position, Setting, Slot, slot};

/// Edges of the graph.
const COUNT: Parameter = Parameter::u32("edge_count");

pub(crate) const SLOT: Slot = slot!("mask", "edges", COUNT);

/// A graph from query rows (destinations) to keys (sources).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Edges {
    /// Edges.
    pub count: u32,
    /// Whether a bias per edge, `edge_bias` `[count]`, is added to scores.
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

    fn parameters(&self) -> Vec<Setting> {
        vec![COUNT.is(self.count)]
    }

    fn keeps(&self, at: &Position, operands: &Operands<'_>) -> bool {
        Self::find(at.row, at.key, operands).is_some()
    }

    fn narrow(&self, _: u32, _: i64, keys: Range<i64>) -> Range<i64> {
        keys
    }
}
