//! `Problem`: a validated [`Attention`] with everything resolved.

use std::fmt;
use std::ops::Range;

use crate::error::{Error, Result};
use crate::feature::align::Align;
use crate::feature::inner::Inner;
use crate::feature::mask::Mask;
use crate::feature::operand::{Dense, Rows};
use crate::feature::prepare::Cosine;
use crate::feature::score::Score;
use crate::feature::weight::Dropout;
use crate::feature::{Operands, Position, Setting};
use crate::problem::validate::{
    check_cache, check_masks, check_normalizer, check_packed, check_prepare, distinct,
    resolve_align, resolve_strides,
};
use crate::problem::{Attention, Operand, Packed, Paged};
use crate::tensor::{Layout, Scalar, Storage, Strides};

/// A validated attention call: every default resolved, every conflict refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Problem {
    attention: Attention,
    scale: Scalar,
    strides: [Strides; 4],
    align: Option<Align>,
}

impl Problem {
    pub(crate) fn new(attention: &Attention) -> Result<Self> {
        let a = attention;
        let shape = a.shape;
        shape.validate()?;
        let usual = match a.inner {
            Inner::Product if a.cosine.is_none() && a.general.is_none() => {
                1.0 / (shape.dim_qk as f32).sqrt()
            }
            _ => 1.0,
        };
        let scale = a.scale.unwrap_or(Scalar(usual));
        a.modifiers(scale).iter().try_for_each(|score| score.validate(&shape))?;
        masks(a).try_for_each(|mask| mask.validate(&shape))?;
        check_normalizer(a)?;
        a.dropout.iter().try_for_each(Dropout::validate)?;
        check_prepare(a)?;
        check_masks(a)?;
        distinct("score", a.custom_scores.iter().map(|score| score.slot()))?;
        distinct("mask", a.custom_masks.iter().map(|mask| mask.slot()))?;
        if a.table.is_some_and(|words| words > 1 << 20) {
            let found = a.table.unwrap_or_default();
            return Err(Error::invalid("table", found, "at most 2^20 words"));
        }
        check_packed(a)?;
        check_cache(a)?;
        let align = resolve_align(a)?;
        let strides = resolve_strides(a)?;
        Ok(Self { attention: a.clone(), scale, strides, align })
    }

    /// What was asked.
    pub fn attention(&self) -> &Attention {
        &self.attention
    }

    /// The factor on q·k.
    pub fn scale(&self) -> f32 {
        self.scale.get()
    }

    /// Strides of q, k, v or o; zeros for other operands, which have no rows.
    pub fn strides(&self, operand: Operand) -> Strides {
        operand.rows().map_or(Strides::default(), |rows| self.strides[rows as usize])
    }

    /// Whether o may be written over q: each row lies, in whole words, where that row of q does of which alone it is
    /// made. Nothing stored to a row may come before the loads that it is made of, whatever a compiler assumes of the
    /// two bindings; workgroups that share a row (shares of keys) leave it to a later dispatch.
    pub(crate) fn replaces_q(&self) -> bool {
        let like = |operand| (self.dim(operand), self.strides(operand), self.element_bits(operand));
        let (dim, Strides { batch, head, row }, bits) = like(Operand::O);
        let words = |n: u64| (n * bits).is_multiple_of(32);
        like(Operand::Q) == like(Operand::O)
            && [u64::from(dim), batch, head, row].into_iter().all(words)
    }

    /// Channels of a row of q, k, v or o as the caller has it; 0 for other operands.
    pub fn dim(&self, operand: Operand) -> u32 {
        let a = &self.attention;
        operand.rows().map_or(0, |rows| match rows {
            Rows::Q => a.general.unwrap_or(a.shape.dim_qk),
            Rows::K => a.shape.dim_qk,
            Rows::V | Rows::O => a.shape.dim_v,
        })
    }

    /// Heads of q, k, v or o; 0 for other operands.
    pub(crate) fn heads(&self, operand: Operand) -> u32 {
        let s = self.attention.shape;
        operand.rows().map_or(0, |rows| match rows {
            Rows::Q | Rows::O => s.heads_q,
            Rows::K | Rows::V => s.heads_kv,
        })
    }

    /// Rows of a head of q, k, v or o, without regard to packing and pages; 0 for other operands.
    pub(crate) fn seq(&self, operand: Operand) -> u32 {
        let s = self.attention.shape;
        operand.rows().map_or(0, |rows| match rows {
            Rows::Q | Rows::O => s.seq_q,
            Rows::K | Rows::V => s.seq_kv,
        })
    }

    /// Whether an operand is rotated, projected or normalised before it meets the other: kernels then
    /// read an f32 copy without gaps.
    pub fn prepares(&self, operand: Operand) -> bool {
        let a = &self.attention;
        operand.rows().is_some_and(|rows| match rows {
            Rows::Q => a.rotary.is_some() || a.cosine.is_some() || a.general.is_some(),
            Rows::K => {
                let keys = a.shape.seq_kv.max(1);
                a.rotary.is_some_and(|x| x.keys_from < keys) || a.cosine.is_some()
            }
            Rows::V | Rows::O => false,
        })
    }

    /// Strides of an operand as kernels that make scores read it.
    pub(crate) fn read_strides(&self, operand: Operand) -> Strides {
        match self.prepares(operand) {
            true => self.copy_strides(operand, self.attention.shape.dim_qk),
            false => self.strides(operand),
        }
    }

    /// Strides of a copy of q or k with `dim` channels: rows without gaps, head by head; packed ones as the caller's.
    pub(crate) fn copy_strides(&self, operand: Operand, dim: u32) -> Strides {
        Layout::Bhsd.strides(self.heads(operand), self.extent(operand).1, dim)
    }

    /// Rows of such a copy, of all heads.
    pub(crate) fn copy_rows(&self, operand: Operand) -> u64 {
        let (batch, rows) = self.extent(operand);
        [batch, self.heads(operand), rows].into_iter().map(u64::from).product()
    }

    /// How q, k, v or o is stored.
    pub fn storage(&self, operand: Operand) -> Storage {
        let a = &self.attention;
        let usual = a.dtype.into();
        if matches!(operand, Operand::K | Operand::V) {
            a.kv_storage.unwrap_or(usual)
        } else {
            usual
        }
    }

    /// Units of a row of q, k, v or o.
    pub fn row_units(&self, operand: Operand) -> u32 {
        self.storage(operand).row_units(self.dim(operand))
    }

    /// Storage of an operand as kernels that make scores read it.
    pub(crate) fn read_storage(&self, operand: Operand) -> Storage {
        if self.prepares(operand) { Storage::F32 } else { self.storage(operand) }
    }

    /// Units of a row as kernels that make scores read it.
    pub(crate) fn read_units(&self, operand: Operand) -> u32 {
        let channels =
            if operand == Operand::Q { self.attention.shape.dim_qk } else { self.dim(operand) };
        self.read_storage(operand).row_units(channels)
    }

    /// Alignment of the diagonal of causal mask and window.
    pub fn align(&self) -> Align {
        self.align.unwrap_or(Align::TopLeft)
    }

    /// Whether a table of offsets per sequence comes with the tensors.
    pub fn needs_offsets(&self) -> bool {
        let alibi = self.attention.alibi.map(|alibi| alibi.align);
        self.align == Some(Align::PerBatch) || alibi == Some(Align::PerBatch)
    }

    /// The rows of the rotary tables that the call reads; `ids` are the positions of rows and keys where the host
    /// has them.
    pub(crate) fn rotary_rows(&self, [ids, key_ids]: [Option<&[u32]>; 2]) -> Range<u32> {
        let (a, s) = (&self.attention, self.attention.shape);
        let Some(rotary) = a.rotary else { return 0..0 };
        let all = 0..rotary.table_rows;
        let new = rotary.new_keys(&s);
        let [q_start, q_rows] = match (rotary.at_end, a.kv_lengths || a.q_lengths) {
            (false, _) => [rotary.q_start, s.seq_q],
            (true, false) => [s.seq_kv.max(s.seq_q) - s.seq_q, s.seq_q],
            // Lengths are data: any position up to the last key's, and rows past a query length after it.
            (true, true) => [0, s.seq_q.saturating_add(s.seq_kv)],
        };
        let reach = |start: u32, n: u32| (n > 0).then(|| [start, start.saturating_add(n)]);
        // The rows of one side's ids, which are kept within the table.
        let of_ids = |ids: Option<&[u32]>| -> Option<[u32; 2]> {
            let Some(ids) = ids else { return Some([0, all.end]) };
            let within = |id: Option<&u32>| id.map_or(0, |id| (*id).min(all.end - 1));
            Some([within(ids.iter().min()), within(ids.iter().max()) + 1])
        };
        let side = |keys: bool, start: u32, n: u32| match rotary.ids_of(keys, &s) {
            Some((Operand::KeyPositions, _)) => of_ids(key_ids),
            Some(_) => of_ids(ids),
            None => reach(start, n),
        };
        let reaches = [side(false, q_start, q_rows), side(true, rotary.k_start, new)];
        let both = reaches.into_iter().flatten().reduce(|a, b| [a[0].min(b[0]), a[1].max(b[1])]);
        let [start, end] = both.unwrap_or_default();
        start.min(all.end)..end.min(all.end)
    }

    /// The chain of score modifiers, in order.
    #[doc(hidden)]
    pub fn scores(&self) -> Vec<Box<dyn Score>> {
        self.attention.modifiers(self.scale)
    }

    /// The masks, all of which must keep a key: the library's, then the caller's own.
    #[doc(hidden)]
    pub fn masks(&self) -> Vec<&dyn Mask> {
        masks(&self.attention).collect()
    }

    /// The values of every feature's parameters.
    pub(crate) fn parameters(&self) -> Vec<Setting> {
        let a = &self.attention;
        let mut all: Vec<Setting> = self.align().parameters();
        all.extend(self.masks().iter().flat_map(|mask| mask.parameters(&a.shape)));
        all.extend(self.scores().iter().flat_map(|score| score.parameters()));
        all.extend(a.inner.parameters(a.shape.dim_qk));
        all.extend(a.normalizer.parameters());
        all.extend(a.dropout.iter().flat_map(Dropout::parameters));
        all.extend(a.rotary.iter().flat_map(|rotary| rotary.parameters()));
        all.extend(a.cosine.iter().flat_map(Cosine::parameters));
        all.extend(a.packed.iter().flat_map(Packed::parameters));
        all.extend(a.paged.iter().flat_map(Paged::parameters));
        all
    }

    /// Strides along batch, head, row and key of lse, weights, mask or bias; `None` for other operands.
    pub(crate) fn dense_strides(&self, operand: Operand) -> Option<[u64; 4]> {
        let a = &self.attention;
        let s = a.shape;
        let [heads, seq_q] = [s.heads_q, s.seq_q].map(u64::from);
        let by_row = |row: u64, key: u64| {
            let head = row.saturating_mul(seq_q);
            [head.saturating_mul(heads), head, row, key]
        };
        match operand.dense()? {
            Dense::Lse => a.lse.then(|| by_row(1, 0)),
            Dense::Weights => a.weights.map(|_| by_row(s.seq_kv.into(), 1)),
            Dense::Mask => a.masks.boolean_shape().map(|mask| mask.strides()),
            Dense::Bias => a.bias.map(|bias| bias.strides()),
        }
    }

    /// Sequences and rows that an operand's strides reach over: all rows as one when packed, pages and their
    /// size when keys are in pages.
    pub fn extent(&self, operand: Operand) -> (u32, u32) {
        let s = self.attention.shape;
        let queries = matches!(operand.rows(), Some(Rows::Q | Rows::O));
        if let (Some(paged), false) = (self.attention.paged, queries) {
            return (paged.pages, paged.page_size);
        }
        match self.attention.packed {
            Some(packed) if queries => (1, packed.total_q),
            Some(packed) if self.attention.packs_keys() => (1, packed.total_kv),
            _ => (s.batch, if queries { s.seq_q } else { s.seq_kv }),
        }
    }

    /// Where a packed sequence starts and how long it is, within `total` rows and `longest`.
    fn packed_range(table: &[u32], batch: u32, total: u32, longest: u32) -> (u32, u32) {
        let bound = |i: u32| table.get(i as usize).copied().unwrap_or(0).min(total);
        let (start, end) = (bound(batch), bound(batch.saturating_add(1)));
        (start, end.saturating_sub(start).min(longest))
    }

    /// Index of the first element of a row of q, k, v or o.
    pub fn index(&self, operand: Operand, at: [u32; 3], operands: &Operands<'_>) -> u64 {
        self.index_in(self.strides(operand), operand, at, operands)
    }

    /// The same where the operand lies otherwise.
    pub(crate) fn index_in(
        &self,
        strides: Strides,
        operand: Operand,
        [batch, head, row]: [u32; 3],
        operands: &Operands<'_>,
    ) -> u64 {
        if let (Some(paged), Operand::K | Operand::V) = (self.attention.paged, operand) {
            let page = self.page_of(batch, row, operands).unwrap_or(0);
            return strides.index(page.into(), head.into(), (row % paged.page_size).into());
        }
        let (table, total) = match (operand.rows(), self.attention.packed) {
            (Some(Rows::Q | Rows::O), Some(packed)) => (operands.cu_seqlens_q, packed.total_q),
            (Some(Rows::K | Rows::V), Some(packed)) if self.attention.packs_keys() => {
                (operands.cu_seqlens_kv, packed.total_kv)
            }
            _ => return strides.index(batch.into(), head.into(), row.into()),
        };
        let (start, _) = Self::packed_range(table, batch, total, total);
        strides.index(0, head.into(), u64::from(start) + u64::from(row))
    }

    /// The page that holds a key of a paged call; `None` where the table names none that exists.
    pub fn page_of(&self, batch: u32, key: u32, operands: &Operands<'_>) -> Option<u32> {
        let paged = self.attention.paged?;
        let entry = u64::from(batch) * u64::from(paged.row) + u64::from(key / paged.page_size);
        let page = operands.page_table.get(usize::try_from(entry).ok()?)?;
        (*page < paged.pages).then_some(*page)
    }

    /// Whether o and lse hold a row: packed tensors hold none past a sequence's length.
    pub fn stores(&self, batch: u32, row: u32, operands: &Operands<'_>) -> bool {
        row < self.held(batch, operands).0
    }

    /// Index of a row's lse: `[batch, heads_q, seq_q]`, or `[total_q, heads_q]` when packed.
    pub fn lse_index(&self, [batch, head, row]: [u32; 3], operands: &Operands<'_>) -> u64 {
        let s = self.attention.shape;
        let heads = u64::from(s.heads_q);
        let (head, row) = (u64::from(head), u64::from(row));
        match self.attention.packed {
            None => Layout::Bhsd.strides(s.heads_q, s.seq_q, 1).index(batch.into(), head, row),
            Some(packed) => {
                let total = packed.total_q;
                let (start, _) = Self::packed_range(operands.cu_seqlens_q, batch, total, total);
                (u64::from(start) + row) * heads + head
            }
        }
    }

    /// Rows and keys that tensors hold of one sequence: those of the shape, unless they are packed.
    pub(crate) fn held(&self, batch: u32, operands: &Operands<'_>) -> (u32, u32) {
        let a = &self.attention;
        let of = |packed: Option<(&[u32], u32)>, longest: u32| match packed {
            Some((table, total)) => Self::packed_range(table, batch, total, longest).1,
            None => longest,
        };
        let rows = a.packed.map(|x| (operands.cu_seqlens_q, x.total_q));
        let keys = a.packed.filter(|_| a.packs_keys());
        let keys = keys.map(|x| (operands.cu_seqlens_kv, x.total_kv));
        (of(rows, a.shape.seq_q), of(keys, a.shape.seq_kv))
    }

    /// Rows that q, or k, holds of one sequence.
    pub(crate) fn rows_held(&self, operand: Operand, batch: u32, operands: &Operands<'_>) -> u32 {
        let (rows, keys) = self.held(batch, operands);
        if operand == Operand::K { keys } else { rows }
    }

    /// Query and key lengths of one sequence, never more than its tensors hold.
    pub fn lengths(&self, batch: u32, operands: &Operands<'_>) -> (u32, u32) {
        let shorter = |on: bool, table: &[u32], held: u32| {
            let length = table.get(batch as usize).filter(|_| on);
            length.map_or(held, |n| held.min(*n))
        };
        let (a, (rows, keys)) = (&self.attention, self.held(batch, operands));
        let q_len = shorter(a.q_lengths, operands.q_lengths, rows);
        (q_len, shorter(a.kv_lengths, operands.kv_lengths, keys))
    }

    /// The position of (batch, head, row, 0) with its sequence's lengths and diagonal.
    pub fn position(&self, batch: u32, head: u32, row: u32, operands: &Operands<'_>) -> Position {
        let (q_len, kv_len) = self.lengths(batch, operands);
        let diagonal = self.align().diagonal(batch, q_len, kv_len, operands);
        Position { batch, head, row, key: 0, q_len, kv_len, diagonal }
    }

    /// Whether the row at `at` may attend to the key at `at`: both within their lengths, the key's page one that
    /// exists, kept by every mask, and not under a bias of −∞. Scores decide nothing here.
    ///
    /// ```
    /// use heedful::{Align, Attention, Operands, Position, Shape};
    /// let problem = Attention::new(Shape::self_attention(1, 1, 8, 16)).causal(Align::TopLeft).validate()?;
    /// let none = Operands::default();
    /// let at = problem.position(0, 0, 3, &none);
    /// let seen: Vec<u32> = (0..8).filter(|key| problem.sees(&Position { key: *key, ..at }, &none)).collect();
    /// assert_eq!(seen, [0, 1, 2, 3]);
    /// # Ok::<(), heedful::Error>(())
    /// ```
    ///
    /// # Panics
    /// When `operands` are shorter than the call demands.
    pub fn sees(&self, at: &Position, operands: &Operands<'_>) -> bool {
        self.sees_by(&self.masks(), at, operands)
    }

    /// [`sees`](Self::sees), with the masks at hand.
    pub(crate) fn sees_by(
        &self,
        masks: &[&dyn Mask],
        at: &Position,
        operands: &Operands<'_>,
    ) -> bool {
        at.row < at.q_len
            && at.key < at.kv_len
            && (self.attention.paged.is_none()
                || self.page_of(at.batch, at.key, operands).is_some())
            && masks.iter().all(|mask| mask.keeps(at, operands, &self.attention.shape))
            && self.attention.bias.is_none_or(|shape| {
                let index = shape.index([at.batch, at.head, at.row, at.key]);
                operands.bias[index] != f64::NEG_INFINITY
            })
    }

    /// The keys that a row may see as far as lengths, causality and window tell; data masks and
    /// biases may hide more of them.
    pub fn key_range(&self, at: &Position) -> Range<u32> {
        let all = 0..if at.row < at.q_len { i64::from(at.kv_len) } else { 0 };
        let range =
            self.masks().iter().fold(all, |keys, mask| mask.narrow(at.row, at.diagonal, keys));
        let bound = |n: i64| n.clamp(0, i64::from(at.kv_len)) as u32;
        let start = bound(range.start);
        start..bound(range.end).max(start)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.attention.shape, self.feature_text())
    }
}

fn masks(a: &Attention) -> impl Iterator<Item = &dyn Mask> {
    a.masks.iter().chain(a.custom_masks.iter().map(|mask| mask as &dyn Mask))
}
