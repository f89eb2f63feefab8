//! s + `table[h, clamp(j − i − offset, −left, right) + left]`: a bias by relative position.
//!
//! One table serves learned relative positions, T5's buckets ([`Relative::t5_table`]) and any other function of
//! j − i that is constant far away.

use super::{Score, Stage};
use crate::error::{Error, Result};
use crate::feature::align::MAX_OFFSET;
use crate::feature::{Entry, Operand, Operands, Parameter, Position, Setting, Slot, slot};
use crate::tensor::Shape;

/// Entries before and after distance 0, and the key at distance 0 from row 0.
const LEFT: Parameter = Parameter::i32("relative_left");
const RIGHT: Parameter = Parameter::i32("relative_right");
const OFFSET: Parameter = Parameter::i32("relative_offset");

pub(crate) const SLOT: Slot = slot!("score", "relative", LEFT, RIGHT, OFFSET)
    .reading(&[Operand::Relative])
    .titled("bias by position");

/// A bias `[heads_q, left + 1 + right]` by the distance j − i − offset from row i to key j.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Relative {
    /// Entries before distance 0; keys further back read the first.
    pub left: u32,
    /// Entries after distance 0; keys further on read the last.
    pub right: u32,
    /// The key at distance 0 from row 0: the length of the past.
    #[cfg_attr(feature = "serde", serde(default))]
    pub offset: i32,
}

impl Relative {
    /// Entries of the table per head.
    pub fn width(&self) -> u64 {
        u64::from(self.left) + u64::from(self.right) + 1
    }

    /// The entry that a row and a key share.
    fn index(&self, at: &Position) -> usize {
        let distance = i64::from(at.key) - i64::from(at.row) - i64::from(self.offset);
        let (left, right) = (i64::from(self.left), i64::from(self.right));
        let entry = (distance.clamp(-left, right) + left) as u64;
        (u64::from(at.head) * self.width() + entry) as usize
    }

    /// The table `[heads, left + 1 + right]` of T5's relative bias (Raffel et al., 2020) from its learned
    /// `[buckets, heads]`: near keys have buckets of their own, far ones share them logarithmically up to
    /// `max_distance` positions. `bidirectional` as in the model: keys ahead have half of the buckets.
    ///
    /// # Errors
    /// Invalid argument naming `learned` where its elements are not a bucket or more for each head, two for each where
    /// keys ahead have their own.
    pub fn t5_table(
        &self,
        learned: &[f32],
        heads: u32,
        bidirectional: bool,
        max_distance: u32,
    ) -> Result<Vec<f32>> {
        let least = if bidirectional { 2 } else { 1 };
        let buckets = learned.len() as u32 / heads.max(1);
        if u64::from(buckets) * u64::from(heads) != learned.len() as u64 || buckets < least {
            let found = format!("{} elements", learned.len());
            let wanted = format!("[buckets, {heads}], at least {least} buckets");
            return Err(Error::invalid("learned", found, wanted));
        }
        let distances = -i64::from(self.left)..=i64::from(self.right);
        let one = |head: u32, distance: i64| {
            let bucket = t5_bucket(distance, bidirectional, buckets, max_distance);
            learned[(bucket * heads + head) as usize]
        };
        let entries = (0..heads).flat_map(|head| distances.clone().map(move |d| (head, d)));
        Ok(entries.map(|(head, distance)| one(head, distance)).collect())
    }

    /// The gradient of T5's learned `[buckets, heads]` from that of the table that [`t5_table`](Self::t5_table) makes
    /// of it.
    #[doc(hidden)]
    pub fn t5_table_backward(
        &self,
        gradient: &[f64],
        heads: u32,
        bidirectional: bool,
        max_distance: u32,
        buckets: u32,
    ) -> Vec<f64> {
        let mut learned = vec![0.0; buckets as usize * heads as usize];
        let distances = -i64::from(self.left)..=i64::from(self.right);
        let entries = (0..heads).flat_map(|head| distances.clone().map(move |d| (head, d)));
        for ((head, distance), d) in entries.zip(gradient) {
            let bucket = t5_bucket(distance, bidirectional, buckets, max_distance);
            learned[(bucket * heads + head) as usize] += d;
        }
        learned
    }

    /// The dense bias `[heads, n, n]`, n = rows · columns, of a learned table by relative position on a grid,
    /// `[(2 rows − 1) (2 columns − 1), heads]` (Swin: Liu et al., 2021): entry
    /// (y + rows − 1) (2 columns − 1) + x + columns − 1 for an offset of (y, x) from key to row.
    ///
    /// # Errors
    /// Invalid argument naming `table` where it has another number of elements.
    pub fn grid_bias(table: &[f32], rows: u32, columns: u32, heads: u32) -> Result<Vec<f32>> {
        let sides = [rows, columns].map(|n| (2 * u64::from(n)).saturating_sub(1));
        let elements = sides[0].saturating_mul(sides[1]).saturating_mul(heads.into());
        if elements != table.len() as u64 || elements > u64::from(u32::MAX) {
            let (found, [y, x]) = (format!("{} elements", table.len()), sides);
            return Err(Error::invalid("table", found, format!("[{y} * {x}, {heads}]")));
        }
        let points = rows * columns;
        let entry = |i: u32, j: u32| {
            let y = i / columns + rows - 1 - j / columns;
            let x = i % columns + columns - 1 - j % columns;
            (y * (2 * columns - 1) + x) * heads
        };
        let pairs = (0..points).flat_map(|i| (0..points).map(move |j| (i, j)));
        let one = |h: u32| pairs.clone().map(move |(i, j)| (h, i, j));
        Ok((0..heads).flat_map(one).map(|(h, i, j)| table[(entry(i, j) + h) as usize]).collect())
    }
}

impl Score for Relative {
    fn stage(&self) -> Stage {
        Stage::Biased
    }

    fn slot(&self) -> Slot {
        SLOT
    }

    fn text(&self) -> Option<String> {
        Some(format!("relative({},{},{})", self.left, self.right, self.offset))
    }

    fn validate(&self, shape: &Shape) -> Result<()> {
        let entries = u64::from(shape.heads_q).saturating_mul(self.width());
        if entries <= 1 << 24 && self.offset.unsigned_abs() <= MAX_OFFSET.unsigned_abs() {
            return Ok(());
        }
        let found = format!("{self:?}");
        Err(Error::invalid("relative", found, "at most 2^24 entries, offset 2^28"))
    }

    fn operands(&self, shape: &Shape) -> Vec<(Operand, u64)> {
        vec![(Operand::Relative, u64::from(shape.heads_q) * self.width())]
    }

    fn parameters(&self) -> Vec<Setting> {
        vec![LEFT.is(self.left as i32), RIGHT.is(self.right as i32), OFFSET.is(self.offset)]
    }

    fn apply(&self, s: f64, at: &Position, operands: &Operands<'_>) -> f64 {
        s + operands.relative[self.index(at)]
    }

    fn derivative(&self, _: f64, _: &Position, _: &Operands<'_>) -> f64 {
        1.0
    }

    fn entry(&self, at: &Position, _: &Operands<'_>) -> Option<Entry> {
        Some(Entry { operand: Operand::Relative, index: self.index(at), factor: 1.0 })
    }
}

/// T5's bucket of the distance j − i.
fn t5_bucket(distance: i64, bidirectional: bool, buckets: u32, max_distance: u32) -> u32 {
    let (mut first, mut buckets, mut n) = (0, buckets, -distance);
    if bidirectional {
        buckets /= 2;
        if n < 0 {
            first = buckets;
            n = -n;
        }
    } else {
        n = n.max(0);
    }
    let exact = (buckets / 2).max(1);
    if n < i64::from(exact) {
        return first + n as u32;
    }
    // In f32, as the model it comes from: the edges of the buckets depend on it.
    let ratio =
        (n as f32 / exact as f32).ln() / (f64::from(max_distance) / f64::from(exact)).ln() as f32;
    let far = exact + (ratio * (buckets - exact) as f32).max(0.0) as u32;
    first + far.min(buckets.max(1) - 1)
}

#[cfg(test)]
mod tests {
    use super::{Relative, t5_bucket};

    /// Swin's index of a 2 by 2 window, row by row.
    #[test]
    fn grid_entries_are_those_of_swin() {
        let table: Vec<f32> = (0..9_u8).map(f32::from).collect();
        let bias = Relative::grid_bias(&table, 2, 2, 1).expect("9 entries");
        let wanted = [4, 3, 1, 0, 5, 4, 2, 1, 7, 6, 4, 3, 8, 7, 5, 4].map(|n: u8| f32::from(n));
        assert_eq!(bias, wanted);
    }

    #[test]
    fn tables_of_another_size_are_refused() {
        for (rows, columns, heads) in [(2, 2, 2), (0, 2, 1), (u32::MAX, u32::MAX, u32::MAX)] {
            let error = Relative::grid_bias(&[0.0; 9], rows, columns, heads).unwrap_err();
            assert!(error.is_invalid() && error.to_string().contains("table"), "{error}");
        }
        let relative = Relative { left: 3, right: 3, offset: 0 };
        for (learned, heads, both) in [(9, 2, false), (0, 2, false), (2, 2, true), (4, 0, false)] {
            let error = relative.t5_table(&vec![0.0; learned], heads, both, 8).unwrap_err();
            assert!(error.is_invalid() && error.to_string().contains("learned"), "{error}");
        }
        assert_eq!(relative.t5_table(&[1.0; 4], 2, true, 8).expect("2 buckets").len(), 2 * 7);
    }

    /// What `transformers` gives for 32 buckets up to distance 128, both ways.
    #[test]
    fn buckets_are_those_of_the_model() {
        let found = [-200, -20, -3, 0, 1, 9, 130].map(|d| t5_bucket(d, true, 32, 128));
        assert_eq!(found, [15, 10, 3, 0, 17, 24, 31]);
    }
}
