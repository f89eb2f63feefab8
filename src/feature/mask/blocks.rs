//! Block-sparse attention: a table says which blocks of query rows by keys are visited at all.
//!
//! Two bits per block, 16 blocks to a word. Bit 0: some pair of the block is visible. Bit 1: no mask
//! given as data or as a function hides any pair of it, so that kernels need not test them. A table
//! is built by [`Blocks::table`] from a predicate, or on the GPU by
//! [`Engine::bind_blocks`](crate::Engine::bind_blocks) from masks that live there.

use super::{Kind, Mask};
use crate::error::{Error, Result};
use crate::feature::{Operand, Operands, Parameter, Position, Setting, Slot, slot};
use crate::tensor::Shape;

/// Query rows and keys of a block.
const ROWS: Parameter = Parameter::u32("block_rows");
const KEYS: Parameter = Parameter::u32("block_keys");

/// Words of the table from one sequence, head and row of blocks to the next.
const STRIDES: [Parameter; 3] = [
    Parameter::u32("blocks_stride_batch"),
    Parameter::u32("blocks_stride_head"),
    Parameter::u32("blocks_stride_row"),
];

pub(crate) const SLOT: Slot =
    slot!("mask", "blocks", ROWS, KEYS, STRIDES[0], STRIDES[1], STRIDES[2]).titled("block tables");

/// Most words of a table: 64 MiB.
const MAX_WORDS: u64 = 1 << 24;

/// The blocks of a block-sparse call, and whether sequences and heads have tables of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Blocks {
    /// Query rows of a block; fastest where it is a multiple of 32.
    pub rows: u32,
    /// Keys of a block; fastest from 32 on.
    pub keys: u32,
    /// 1, or the batch size: a table per sequence.
    #[cfg_attr(feature = "serde", serde(default = "one"))]
    pub batch: u32,
    /// 1, or the query heads: a table per head.
    #[cfg_attr(feature = "serde", serde(default = "one"))]
    pub heads: u32,
}

#[cfg(feature = "serde")]
fn one() -> u32 {
    1
}

impl Blocks {
    /// Blocks of `rows` query rows by `keys` keys, one table for all sequences and heads.
    pub fn new(rows: u32, keys: u32) -> Self {
        Self { rows, keys, batch: 1, heads: 1 }
    }

    /// Blocks along rows and along keys; blocks of nothing are taken as blocks of 1.
    fn counts(&self, shape: &Shape) -> [u32; 2] {
        [shape.seq_q.div_ceil(self.rows.max(1)), shape.seq_kv.div_ceil(self.keys.max(1))]
    }

    /// Strides of the table in words: sequence, head, row of blocks; 0 where one serves all.
    pub fn strides(&self, shape: &Shape) -> [u64; 3] {
        let [rows, keys] = self.counts(shape).map(u64::from);
        let words = keys.div_ceil(16);
        let head = words * rows;
        let batch = head.saturating_mul(u64::from(self.heads));
        let own = |n: u32, stride: u64| if n == 1 { 0 } else { stride };
        [own(self.batch, batch), own(self.heads, head), words]
    }

    /// Words of the table.
    pub fn words(&self, shape: &Shape) -> u64 {
        let [rows, keys] = self.counts(shape).map(u64::from);
        let head = keys.div_ceil(16) * rows;
        head.saturating_mul(u64::from(self.heads)).saturating_mul(u64::from(self.batch))
    }

    /// Builds the table of a mask given as a predicate of (sequence, head, row, key); the predicate is
    /// asked about every pair once for each sequence and head that has a table.
    ///
    /// Where it keeps part of a block only, the call needs the mask itself as well
    /// ([`keep`](crate::Attention::keep), [`mask`](crate::Attention::mask)): the table says which
    /// blocks are visited, not which pairs.
    ///
    /// ```
    /// use heedful::{Attention, Blocks, Shape};
    /// let shape = Shape::self_attention(1, 8, 256, 64);
    /// let blocks = Blocks::new(64, 64);
    /// // Each row sees its own block of 64 and the first one.
    /// let table = blocks.table(&shape, |_, _, row, key| row / 64 == key / 64 || key < 64);
    /// let attention = Attention::new(shape).blocks(blocks);
    /// assert_eq!(table.len() as u64, blocks.words(&shape));
    /// assert_eq!(blocks.density(&shape, &table), 7.0 / 16.0);
    /// # attention.validate()?;
    /// # Ok::<(), heedful::Error>(())
    /// ```
    pub fn table(&self, shape: &Shape, keep: impl Fn(u32, u32, u32, u32) -> bool) -> Vec<u32> {
        let mut table = vec![0_u32; self.words(shape) as usize];
        let [_, _, stride] = self.strides(shape);
        let [rows, keys] = self.counts(shape);
        let tables = (0..self.batch).flat_map(|b| (0..self.heads).map(move |h| (b, h)));
        for (i, (batch, head)) in tables.enumerate() {
            for block_row in 0..rows {
                let row0 = block_row * self.rows.max(1);
                let row_end = shape.seq_q.min(row0.saturating_add(self.rows.max(1)));
                for block_key in 0..keys {
                    let key0 = block_key * self.keys.max(1);
                    let key_end = shape.seq_kv.min(key0.saturating_add(self.keys.max(1)));
                    let mut pairs = (row0..row_end)
                        .flat_map(|row| (key0..key_end).map(move |key| (row, key)))
                        .map(|(row, key)| keep(batch, head, row, key));
                    let first = pairs.next().unwrap_or(false);
                    let mixed = pairs.any(|kept| kept != first);
                    let bits = if mixed { 1 } else { 3 * u32::from(first) };
                    let line = i as u64 * u64::from(rows) + u64::from(block_row);
                    let word = line * stride + u64::from(block_key / 16);
                    table[word as usize] |= bits << (block_key % 16 * 2);
                }
            }
        }
        table
    }

    /// The share of all blocks that a table visits.
    pub fn density(&self, shape: &Shape, table: &[u32]) -> f64 {
        let visited: u64 =
            table.iter().map(|word| u64::from((word & 0x5555_5555).count_ones())).sum();
        let [rows, keys] = self.counts(shape).map(f64::from);
        let all = rows * keys * f64::from(self.batch) * f64::from(self.heads);
        visited as f64 / all.max(1.0)
    }
}

impl Mask for Blocks {
    fn slot(&self) -> Slot {
        SLOT
    }

    fn text(&self) -> String {
        format!("blocks({}x{},{},{})", self.rows, self.keys, self.batch, self.heads)
    }

    fn validate(&self, shape: &Shape) -> Result<()> {
        for (name, found) in [("blocks rows", self.rows), ("blocks keys", self.keys)] {
            if found == 0 || found > 1 << 20 {
                return Err(Error::invalid(name, found, "1..=2^20"));
            }
        }
        let axes = [("batch", self.batch, shape.batch), ("heads", self.heads, shape.heads_q)];
        for (axis, found, full) in axes {
            if found != 1 && found != full {
                return Err(Error::invalid(
                    format!("blocks {axis}"),
                    found,
                    format!("1 or {full}"),
                ));
            }
        }
        let words = self.words(shape);
        if words > MAX_WORDS {
            let wanted = "blocks so large that the table has at most 2^24 words";
            return Err(Error::invalid("blocks", format!("{words} words"), wanted));
        }
        Ok(())
    }

    fn unpacked(&self) -> Option<&'static str> {
        Some("no block table, or sequences that are not packed")
    }

    fn operands(&self, shape: &Shape) -> Vec<(Operand, u64)> {
        vec![(Operand::Blocks, self.words(shape))]
    }

    fn parameters(&self, shape: &Shape) -> Vec<Setting> {
        let strides = STRIDES.into_iter().zip(self.strides(shape));
        let strides = strides.map(|(parameter, stride)| parameter.is(stride as u32));
        [ROWS.is(self.rows), KEYS.is(self.keys)].into_iter().chain(strides).collect()
    }

    fn keeps(&self, at: &Position, operands: &Operands<'_>, shape: &Shape) -> bool {
        let [batch, head, row] = self.strides(shape);
        let block = at.key / self.keys;
        let word = u64::from(at.batch) * batch
            + u64::from(at.head) * head
            + u64::from(at.row / self.rows) * row
            + u64::from(block / 16);
        operands.blocks[word as usize] >> (block % 16 * 2) & 1 == 1
    }
}

impl Kind for Blocks {
    fn examples(shape: &Shape) -> Vec<Self> {
        let own = Self { batch: shape.batch, heads: shape.heads_q, ..Self::new(4, 2) };
        vec![Self::new(3, 4), own]
    }

    fn known(self, shape: &Shape) -> Self {
        let own = |n: u32, full: u32| if n == 1 { 1 } else { full };
        let (batch, heads) = (own(self.batch, shape.batch), own(self.heads, shape.heads_q));
        Self { batch, heads, ..self }
    }
}
