//! s + Gumbel noise: the largest of the sums is a draw from softmax(s).
//!
//! The noise of (batch, head, row, key) is word key mod 4 of Philox4x32-10 (Salmon et al., 2011) with the
//! counter (row, key / 4, batch · heads_q + head, 0) and the seed as key.

use super::{Score, Stage};
use crate::feature::philox::philox;
use crate::feature::{Operands, Parameter, Position, Setting, Slot, slot};

/// The seed's words.
const LOW: Parameter = Parameter::u32("seed_low");
const HIGH: Parameter = Parameter::u32("seed_high");

pub(crate) const SLOT: Slot = slot!("score", "gumbel", LOW, HIGH).unlisted();

/// Adds the noise of a seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Gumbel {
    /// The seed.
    pub seed: u64,
    /// Query heads of the call.
    pub heads_q: u32,
}

impl Score for Gumbel {
    fn stage(&self) -> Stage {
        Stage::Drawn
    }

    fn slot(&self) -> Slot {
        SLOT
    }

    /// The normaliser says it.
    fn text(&self) -> Option<String> {
        None
    }

    fn parameters(&self) -> Vec<Setting> {
        vec![LOW.is(self.seed as u32), HIGH.is((self.seed >> 32) as u32)]
    }

    fn apply(&self, s: f64, at: &Position, _: &Operands<'_>) -> f64 {
        let counter = [at.row, at.key >> 2, at.batch * self.heads_q + at.head, 0];
        let bits = philox(counter, self.seed)[at.key as usize % 4] >> 9;
        let u = (f64::from(bits) + 0.5) / f64::from(1 << 23);
        s - (-u.ln()).ln()
    }

    fn derivative(&self, _: f64, _: &Position, _: &Operands<'_>) -> f64 {
        1.0
    }
}
