//! The cost model: the only place that counts work and bytes.
//!
//! Forward work is 2 · pairs · (dim_qk + dim_v) FLOP, where `pairs` counts the (row, key) pairs that
//! lengths, causality and window leave, or the edges of a graph; masks given as data do not lower it. Traffic is one
//! read of q, k, v (and mask, bias) and one write of o (and lse, weights). Gradients are 2.5 times the forward work by
//! convention: five products for two. What a plan's tiles really multiply is
//! [`BackwardPlan::flops`](crate::BackwardPlan::flops).

use crate::feature::{Operands, Position};
use crate::problem::{BackwardProblem, Operand, Problem};
use crate::tensor::product;

impl Problem {
    /// (row, key) pairs that lengths, causal mask and window leave visible, over all heads. Tables that
    /// `operands` lack are taken as full lengths and offsets of 0.
    pub fn visible_pairs(&self, operands: &Operands<'_>) -> u64 {
        let shape = self.attention().shape;
        if let Some(edges) = self.attention().masks.edges {
            return product(&[shape.batch, shape.heads_q, edges.count]);
        }
        let tables = [operands.kv_lengths.len(), operands.q_lengths.len(), operands.offsets.len()];
        let alike = self.attention().packed.is_none() && tables == [0; 3];
        let one_head = if alike && shape.batch > 0 {
            self.pairs_of(0, operands).saturating_mul(shape.batch.into())
        } else {
            saturating_sum((0..shape.batch).map(|batch| self.pairs_of(batch, operands)))
        };
        one_head.saturating_mul(shape.heads_q.into())
    }

    /// The pairs of one head of one sequence.
    fn pairs_of(&self, batch: u32, operands: &Operands<'_>) -> u64 {
        let at = self.position(batch, 0, 0, operands);
        if self.masks().is_empty() {
            return u64::from(at.q_len) * u64::from(at.kv_len);
        }
        let row = |row| self.key_range(&Position { row, ..at }).len() as u64;
        saturating_sum((0..at.q_len).map(row))
    }

    /// Forward FLOPs: 2 · pairs · (dim_qk + dim_v), where masks that are data count as visible.
    ///
    /// ```
    /// use heedful::{Align, Attention, Operands, Shape};
    /// let call = Attention::new(Shape::self_attention(1, 8, 1024, 64)).causal(Align::TopLeft);
    /// let pairs = 8 * 1024 * 1025 / 2;
    /// assert_eq!(call.validate()?.flops(&Operands::default()), pairs * 2 * (64 + 64));
    /// # Ok::<(), heedful::Error>(())
    /// ```
    pub fn flops(&self, operands: &Operands<'_>) -> u64 {
        let shape = self.attention().shape;
        let channels = u64::from(shape.dim_qk) + u64::from(shape.dim_v);
        self.visible_pairs(operands).saturating_mul(2 * channels)
    }

    /// Bytes that any implementation must move: each input read once, as far as the sequences' lengths reach, each
    /// output written once.
    pub fn min_bytes(&self, operands: &Operands<'_>) -> u64 {
        let a = self.attention();
        let s = a.shape;
        let lengths = |batch| self.lengths(batch, operands);
        let rows = saturating_sum((0..s.batch).map(|b| u64::from(lengths(b).0)));
        let keys = saturating_sum((0..s.batch).map(|b| u64::from(lengths(b).1)));
        let channels = u64::from(s.heads_q) * u64::from(self.dim(Operand::Q) + s.dim_v);
        let q_and_o = rows.saturating_mul(channels).saturating_mul(a.dtype.bytes());
        let others = self.operands().into_iter().filter(|(operand, _)| operand.rows().is_none());
        let bytes = |(operand, n): (Operand, u64)| {
            // Bits of a mask may not fill their last byte.
            n.saturating_mul(self.element_bits(operand)).div_ceil(8)
        };
        // What is stored of k and v beside their channels is read as well.
        let stored = |operand| {
            let row = u64::from(self.row_units(operand)) * u64::from(s.heads_kv);
            self.storage(operand).bytes(keys.saturating_mul(row))
        };
        let parts = [q_and_o, stored(Operand::K), stored(Operand::V)];
        saturating_sum(parts.into_iter().chain(others.map(bytes)))
    }
}

impl BackwardProblem {
    /// FLOPs of gradients by convention, 2.5 times the forward's, whichever are wanted.
    pub fn flops(&self, operands: &Operands<'_>) -> u64 {
        self.problem().flops(operands).saturating_mul(5) / 2
    }

    /// Bytes that any implementation of gradients must move: each input and what comes in read once, each gradient
    /// written once.
    pub fn min_bytes(&self, operands: &Operands<'_>) -> u64 {
        let call = self.problem();
        let bytes = |operand: &Operand| {
            let elements = call.elements(*operand).unwrap_or(0);
            elements.saturating_mul(self.gradient_bits(*operand)) / 8
        };
        // The gradients of o, lse and weights are as large as these, which the forward pass writes.
        let forward = call.min_bytes(operands);
        saturating_sum(self.wanted().iter().map(bytes).chain([forward]))
    }
}

fn saturating_sum(terms: impl Iterator<Item = u64>) -> u64 {
    terms.fold(0, u64::saturating_add)
}
