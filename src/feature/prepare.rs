//! What happens to q and k before they meet: rotation by position, projection, normalisation.
//!
//! The order is rotary, then general or cosine. Kernels do it in a dispatch of its own that writes f32
//! copies, so that every schedule serves every form (`shaders/kernel/prepare.wgsl`).

use crate::error::{Error, Result};
use crate::feature::{Operand, Parameter, Setting};
use crate::tensor::{Scalar, Shape};

/// Channels that are rotated, rows of the tables.
pub(crate) const ROTARY_DIM: Parameter = Parameter::u32("rotary_dim");
pub(crate) const ROTARY_ROWS: Parameter = Parameter::u32("rotary_rows");

/// Least norm of the cosine score.
const NORM_EPS: Parameter = Parameter::f32("norm_eps");

/// What `shaders/kernel/prepare.wgsl` reads of these features.
pub(crate) const PARAMETERS: &[Parameter] = &[ROTARY_DIM, ROTARY_ROWS, NORM_EPS];

/// Rotary position embedding (Su et al., 2021): pairs of channels are rotated by position · frequency.
///
/// Angles come as tables of cosines and sines `[table_rows, dim / 2]`, `rotary_cos` and `rotary_sin` among
/// the tensors; [`RotaryScaling::tables`](crate::RotaryScaling::tables) makes the usual ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Rotary {
    /// Channels that are rotated, even, the first of each head.
    pub dim: u32,
    /// Pairs (2m, 2m + 1), as GPT-J; otherwise (m, m + dim / 2), as Llama and GPT-NeoX.
    #[cfg_attr(feature = "serde", serde(default))]
    pub interleaved: bool,
    /// Positions in the tables. Of those only the rows that the call reads are bound, where no position ids
    /// on the GPU say which.
    pub table_rows: u32,
    /// Whether position ids `[batch, seq_q]` come with the tensors, for the query rows and, by the same
    /// index, for the keys from `keys_from` on, unless they have their own.
    #[cfg_attr(feature = "serde", serde(default))]
    pub ids: bool,
    /// Whether the keys from `keys_from` on have position ids of their own, `[batch, seq_kv − keys_from]`,
    /// `key_positions` among the tensors: there may be more of them than query rows.
    #[cfg_attr(feature = "serde", serde(default))]
    pub key_ids: bool,
    /// Whether one row of ids serves all sequences, on both sides.
    #[cfg_attr(feature = "serde", serde(default))]
    pub shared_ids: bool,
    /// Without ids: the position of the first query row.
    #[cfg_attr(feature = "serde", serde(default))]
    pub q_start: u32,
    /// Whether the query rows are the last of the keys instead, as in a cache that holds them already: row i of a
    /// sequence is at position kv_len − q_len + i.
    #[cfg_attr(feature = "serde", serde(default))]
    pub at_end: bool,
    /// First key that is rotated; those before it are a cache that was rotated when it was filled.
    #[cfg_attr(feature = "serde", serde(default))]
    pub keys_from: u32,
    /// Without ids: the position of that key.
    #[cfg_attr(feature = "serde", serde(default))]
    pub k_start: u32,
}

impl Rotary {
    /// All `dim` channels in halves, positions counted from 0 on both sides.
    pub fn new(dim: u32, table_rows: u32) -> Self {
        Self {
            dim,
            interleaved: false,
            table_rows,
            ids: false,
            key_ids: false,
            shared_ids: false,
            q_start: 0,
            at_end: false,
            keys_from: 0,
            k_start: 0,
        }
    }

    /// The values of its parameters.
    pub(crate) fn parameters(&self) -> Vec<Setting> {
        vec![ROTARY_DIM.is(self.dim), ROTARY_ROWS.is(self.table_rows)]
    }

    /// Keys that are rotated.
    pub(crate) fn new_keys(&self, s: &Shape) -> u32 {
        s.seq_kv.saturating_sub(self.keys_from)
    }

    /// Rows of a table of position ids.
    pub(crate) fn id_rows(&self, s: &Shape) -> u64 {
        if self.shared_ids { 1 } else { s.batch.into() }
    }

    /// The table of position ids of the query rows or of the keys, and its ids per sequence.
    pub(crate) fn ids_of(&self, keys: bool, s: &Shape) -> Option<(Operand, u32)> {
        match (keys && self.key_ids, self.ids) {
            (true, _) => Some((Operand::KeyPositions, self.new_keys(s))),
            (false, true) => Some((Operand::Positions, s.seq_q)),
            (false, false) => None,
        }
    }

    /// Partner of channel c, its pair m, and whether c is the first of the two.
    pub fn pair(&self, c: u32) -> (u32, u32, bool) {
        let half = self.dim / 2;
        match (self.interleaved, c < half) {
            (true, _) => (c ^ 1, c / 2, c.is_multiple_of(2)),
            (false, true) => (c + half, c, true),
            (false, false) => (c - half, c - half, false),
        }
    }
}

/// Cosine similarity: q / max(‖q‖, eps) · k / max(‖k‖, eps), times a factor per head if one is given
/// (SwinV2: Liu et al., 2022).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Cosine {
    /// Least norm that is divided by.
    pub eps: Scalar,
    /// Whether factors `[heads_q]` come with the tensors.
    #[cfg_attr(feature = "serde", serde(default))]
    pub head_scale: bool,
}

impl Cosine {
    pub(crate) fn validate(&self) -> Result<()> {
        let eps = self.eps.get();
        if eps >= 0.0 && eps.is_finite() {
            return Ok(());
        }
        Err(Error::invalid("cosine eps", eps, "a finite number >= 0"))
    }

    /// A word for names of cases, plans and messages.
    pub(crate) fn text(&self) -> String {
        let heads = if self.head_scale { ",head-scale" } else { "" };
        format!("cosine({:e}{heads})", self.eps.get())
    }

    /// The values of its parameters.
    pub(crate) fn parameters(&self) -> Vec<Setting> {
        vec![NORM_EPS.is(self.eps.get())]
    }
}

impl Rotary {
    /// Checks it for rows of q of `dim_q` channels.
    pub(crate) fn validate(&self, dim_q: u32, s: &Shape) -> Result<()> {
        let most = dim_q.min(s.dim_qk);
        if self.dim == 0 || !self.dim.is_multiple_of(2) || self.dim > most {
            let wanted = format!("an even number up to the head dimension {most}");
            return Err(Error::invalid("rotary dim", self.dim, wanted));
        }
        // Kernels count angles in u32.
        let angles = self.angles();
        if angles > u64::from(u32::MAX) {
            let found = format!("{}, {angles} angles", self.table_rows);
            return Err(Error::invalid("rotary table_rows", found, "fewer than 2^32 angles"));
        }
        let new = self.new_keys(s);
        if self.ids && !self.key_ids && new > s.seq_q {
            let found = format!("{new} keys from keys_from on");
            let wanted = format!("at most seq_q, {}, or key_ids", s.seq_q);
            return Err(Error::invalid("rotary ids", found, wanted));
        }
        if self.shared_ids && !self.ids && !self.key_ids {
            return Err(Error::invalid("rotary shared_ids", "no ids", "ids or key_ids to share"));
        }
        let last = |start: u32, n: u32| u64::from(start) + u64::from(n);
        let q_reach = match (self.ids, self.at_end) {
            (true, _) => 0,
            (false, true) => s.seq_kv.max(s.seq_q).into(),
            (false, false) => last(self.q_start, s.seq_q),
        };
        let counted = new > 0 && self.ids_of(true, s).is_none();
        let reach = if counted { q_reach.max(last(self.k_start, new)) } else { q_reach };
        if reach > u64::from(self.table_rows) {
            let wanted = format!("at least {reach}, the last position and 1");
            return Err(Error::invalid("rotary table_rows", self.table_rows, wanted));
        }
        if self.table_rows == 0 {
            return Err(Error::invalid("rotary table_rows", 0, "at least 1"));
        }
        Ok(())
    }

    /// A word for names of cases, plans and messages: channels and table, pairs, and where positions start if
    /// not at 0.
    pub(crate) fn text(&self) -> String {
        let kind = if self.interleaved { "interleaved" } else { "halves" };
        let mut text = format!("rotary({}x{},{kind}", self.dim, self.table_rows);
        let flags = [
            (self.ids, ",ids"),
            (self.key_ids, ",key-ids"),
            (self.shared_ids, ",shared"),
            (self.at_end, ",end"),
        ];
        text.extend(flags.into_iter().filter(|(on, _)| *on).map(|(_, flag)| flag));
        let starts = [(self.q_start, ",q+"), (self.keys_from, ",from"), (self.k_start, ",k+")];
        for (start, name) in starts.into_iter().filter(|(start, _)| *start > 0) {
            text += &format!("{name}{start}");
        }
        text + ")"
    }

    /// Elements of each table of angles.
    pub(crate) fn angles(&self) -> u64 {
        u64::from(self.table_rows) * u64::from(self.dim / 2)
    }
}
