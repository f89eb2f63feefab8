//! The seven sizes of an attention call.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// Sizes of one attention call.
///
/// q is `[batch, heads_q, seq_q, dim_qk]`, k is `[batch, heads_kv, seq_kv, dim_qk]`, v is
/// `[batch, heads_kv, seq_kv, dim_v]`, o is `[batch, heads_q, seq_q, dim_v]`. Query head `h` reads
/// key/value head `h / (heads_q / heads_kv)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Shape {
    /// Independent sequences.
    pub batch: u32,
    /// Query heads.
    pub heads_q: u32,
    /// Key/value heads; divides `heads_q` (1: multi-query, equal: multi-head, else grouped).
    pub heads_kv: u32,
    /// Query rows per sequence.
    pub seq_q: u32,
    /// Keys per sequence; 0 is defined (o = 0, lse = −∞).
    pub seq_kv: u32,
    /// Head dimension of queries and keys, 1 to [`Shape::MAX_DIM`].
    pub dim_qk: u32,
    /// Head dimension of values and outputs, 1 to [`Shape::MAX_DIM`].
    pub dim_v: u32,
}

impl Shape {
    /// Largest head dimension of the kernels.
    pub const MAX_DIM: u32 = 1024;

    /// Longest sequence: position arithmetic on the GPU is done in i32, with room for window and offset.
    pub const MAX_SEQ: u32 = 1 << 28;

    /// Self-attention: as many keys as queries, as many key heads as query heads, one dimension.
    pub fn self_attention(batch: u32, heads: u32, seq: u32, dim: u32) -> Self {
        Self {
            batch,
            heads_q: heads,
            heads_kv: heads,
            seq_q: seq,
            seq_kv: seq,
            dim_qk: dim,
            dim_v: dim,
        }
    }

    /// Query heads that share one key/value head.
    pub fn group(&self) -> u32 {
        self.heads_q / self.heads_kv.max(1)
    }

    /// Elements of q, k, v and o when stored without gaps; `u64::MAX` where there are more.
    pub fn elements(&self) -> [u64; 4] {
        let product = |sizes: [u32; 4]| product(&sizes);
        [
            product([self.batch, self.heads_q, self.seq_q, self.dim_qk]),
            product([self.batch, self.heads_kv, self.seq_kv, self.dim_qk]),
            product([self.batch, self.heads_kv, self.seq_kv, self.dim_v]),
            product([self.batch, self.heads_q, self.seq_q, self.dim_v]),
        ]
    }

    /// The axes of the scores: `[batch, heads_q, seq_q, seq_kv]`.
    pub fn scores(&self) -> [u32; 4] {
        [self.batch, self.heads_q, self.seq_q, self.seq_kv]
    }

    /// Every (batch, query head, query row), rows fastest.
    pub fn row_positions(&self) -> impl Iterator<Item = [u32; 3]> + use<> {
        let s = *self;
        // Without rows there is nothing to look for in each sequence and head.
        let batch = if s.rows() == 0 { 0 } else { s.batch };
        (0..batch).flat_map(move |batch| {
            (0..s.heads_q).flat_map(move |head| (0..s.seq_q).map(move |row| [batch, head, row]))
        })
    }

    /// Query rows over all heads and sequences; `u64::MAX` where there are more.
    pub fn rows(&self) -> u64 {
        product(&[self.batch, self.heads_q, self.seq_q])
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let in_range = |name: &str, found: u32, low: u32, high: u32| {
            if (low..=high).contains(&found) {
                return Ok(());
            }
            Err(Error::invalid(name, found, format!("{low}..={high}")))
        };
        in_range("batch", self.batch, 0, 1 << 24)?;
        in_range("heads_q", self.heads_q, 1, 1 << 16)?;
        in_range("heads_kv", self.heads_kv, 1, 1 << 16)?;
        in_range("seq_q", self.seq_q, 0, Self::MAX_SEQ)?;
        in_range("seq_kv", self.seq_kv, 0, Self::MAX_SEQ)?;
        in_range("dim_qk", self.dim_qk, 1, Self::MAX_DIM)?;
        in_range("dim_v", self.dim_v, 1, Self::MAX_DIM)?;
        if !self.heads_q.is_multiple_of(self.heads_kv) {
            let wanted = format!("a multiple of heads_kv = {}", self.heads_kv);
            return Err(Error::invalid("heads_q", self.heads_q, wanted));
        }
        Ok(())
    }
}

/// A product of sizes; `u64::MAX` where it is larger, and 0 where one is 0.
pub(crate) fn product(sizes: &[u32]) -> u64 {
    if sizes.contains(&0) {
        return 0;
    }
    sizes.iter().fold(1, |product: u64, &n| product.saturating_mul(n.into()))
}

impl fmt::Display for Shape {
    /// `1x8x512x64`, with `8/2` for grouped heads, `q/kv` lengths and `qk/v` dimensions that differ.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pair = |a: u32, b: u32| if a == b { a.to_string() } else { format!("{a}/{b}") };
        let text = format!(
            "{}x{}x{}x{}",
            self.batch,
            pair(self.heads_q, self.heads_kv),
            pair(self.seq_q, self.seq_kv),
            pair(self.dim_qk, self.dim_v)
        );
        f.pad(&text)
    }
}

impl FromStr for Shape {
    type Err = Error;

    /// Reads what `Display` writes: `1x8x512x64`, `1x32/8x1/8192x128`.
    fn from_str(text: &str) -> Result<Self> {
        let wanted = || {
            let form = "batch x heads x rows x dim, where `a/b` is query/key heads, rows/keys, dim of q and k/of v";
            Error::invalid("shape", format!("{text:?}"), form)
        };
        let number = |text: &str| text.parse::<u32>().map_err(|_| wanted());
        let pair = |text: &str| match text.split_once('/') {
            Some((a, b)) => Ok((number(a)?, number(b)?)),
            None => number(text).map(|n| (n, n)),
        };
        let parts: Vec<&str> = text.split('x').collect();
        let [batch, heads, seq, dim] = parts[..] else { return Err(wanted()) };
        let ((heads_q, heads_kv), (seq_q, seq_kv), (dim_qk, dim_v)) =
            (pair(heads)?, pair(seq)?, pair(dim)?);
        let batch = number(batch)?;
        Ok(Self { batch, heads_q, heads_kv, seq_q, seq_kv, dim_qk, dim_v })
    }
}

#[cfg(test)]
mod tests {
    use super::Shape;

    #[test]
    fn shapes_are_read_as_they_are_written() {
        for text in ["1x8x512x64", "16x32/8x1/4096x128", "2x1x3/0x192/128"] {
            let shape: Shape = text.parse().expect(text);
            assert_eq!(shape.to_string(), text);
        }
        for text in ["", "1x2x3", "1x2x3x4x5", "1x2x3x-4", "1x8/x2x3", "axbxcxd"] {
            let error = text.parse::<Shape>().expect_err(text);
            assert_eq!(error.argument(), Some("shape"), "{error}");
        }
    }
}
