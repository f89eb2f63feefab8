//! Where element (batch, head, row, column) of a tensor lies: strides and broadcasts.

use crate::error::{Error, Result};
use crate::tensor::{Shape, product};

/// Distances in elements between neighbours along batch, head and row; columns are adjacent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Strides {
    /// Elements from one sequence to the next.
    pub batch: u64,
    /// Elements from one head to the next.
    pub head: u64,
    /// Elements from one row (position) to the next. Rows that are only read may overlap, as frames of a
    /// signal do, or be one row (0); those that are written must be apart.
    pub row: u64,
}

/// How q, k, v or o lies in its buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum Layout {
    /// `[batch, heads, seq, dim]` without gaps.
    #[default]
    Bhsd,
    /// `[batch, seq, heads, dim]` without gaps: what a projection writes.
    Bshd,
    /// Any strides; packed QKV `[batch, seq, 3, heads, dim]` is `batch: seq*3*heads*dim, head: dim,
    /// row: 3*heads*dim` with the view's byte offset choosing q, k or v.
    Strided(Strides),
}

impl Layout {
    /// The strides of this layout for `heads` heads of `seq` rows of `dim` elements; `u64::MAX` where one
    /// would be larger.
    pub fn strides(self, heads: u32, seq: u32, dim: u32) -> Strides {
        let (batch, row) = (product(&[heads, seq, dim]), u64::from(dim));
        match self {
            Self::Bhsd => Strides { batch, head: product(&[seq, dim]), row },
            Self::Bshd => Strides { batch, head: row, row: product(&[heads, dim]) },
            Self::Strided(strides) => strides,
        }
    }
}

impl Strides {
    /// Index of the first element of a row; `u64::MAX` where it would be larger.
    pub fn index(&self, batch: u64, head: u64, row: u64) -> u64 {
        let steps = [(batch, self.batch), (head, self.head), (row, self.row)];
        steps.iter().fold(0, |index: u64, (n, step)| index.saturating_add(n.saturating_mul(*step)))
    }

    /// Elements from the first to just past the last of a `[batch, heads, seq, dim]` block;
    /// `None` when that overflows or the block is empty.
    pub fn span(&self, batch: u64, heads: u64, seq: u64, dim: u64) -> Option<u64> {
        let last = |n: u64, stride: u64| n.checked_sub(1)?.checked_mul(stride);
        last(batch, self.batch)?
            .checked_add(last(heads, self.head)?)?
            .checked_add(last(seq, self.row)?)?
            .checked_add(dim)
    }

    /// Rejects strides under which two elements of a `[batch, heads, seq, dim]` block coincide.
    /// Only outputs need this; inputs may repeat elements (stride 0 broadcasts).
    pub(crate) fn check_disjoint(&self, name: &str, sizes: [u32; 4]) -> Result<()> {
        let mut axes: Vec<(u64, u64)> = [self.batch, self.head, self.row, 1]
            .into_iter()
            .zip(sizes.map(u64::from))
            .filter(|&(_, n)| n > 1)
            .collect();
        axes.sort_unstable();
        let mut reach = 0_u64;
        for (stride, n) in axes {
            if stride <= reach {
                let found = format!("strides {self:?}");
                return Err(Error::invalid(name, found, "an output whose elements are distinct"));
            }
            let step = stride.checked_mul(n - 1);
            reach = step
                .and_then(|step| reach.checked_add(step))
                .ok_or_else(|| Error::invalid(name, format!("strides {self:?}"), "no overflow"))?;
        }
        Ok(())
    }
}

/// Shape of a mask or bias: each of `[batch, heads_q, seq_q, seq_kv]` is there in full or is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(transparent))]
pub struct Broadcast(pub [u32; 4]);

impl Broadcast {
    /// Elements stored; `u64::MAX` where there would be more.
    pub fn elements(&self) -> u64 {
        product(&self.0)
    }

    /// Element strides, 0 along the dimensions that are broadcast.
    pub fn strides(&self) -> [u64; 4] {
        let mut strides = [0; 4];
        let mut step = 1_u64;
        for axis in (0..4).rev() {
            let n = u64::from(self.0[axis]);
            strides[axis] = if n == 1 { 0 } else { step };
            step = step.saturating_mul(n);
        }
        strides
    }

    /// Index of the element that (batch, head, row, key) reads.
    pub fn index(&self, at: [u32; 4]) -> usize {
        let [batch, head, row, key] = self.strides();
        let index = Strides { batch, head, row }.index(at[0].into(), at[1].into(), at[2].into());
        let index = index.saturating_add(key.saturating_mul(at[3].into()));
        usize::try_from(index).unwrap_or(usize::MAX)
    }

    /// The same broadcast for another shape.
    pub(crate) fn fitted(&self, shape: &Shape) -> Self {
        let mut axes = shape.scores();
        axes.iter_mut().zip(self.0).filter(|(_, n)| *n == 1).for_each(|(to, _)| *to = 1);
        Self(axes)
    }

    pub(crate) fn validate(&self, name: &str, full: [u32; 4]) -> Result<()> {
        let axes = ["batch", "heads_q", "seq_q", "seq_kv"];
        for ((axis, &found), full) in axes.iter().zip(&self.0).zip(full) {
            if found != 1 && found != full {
                let argument = format!("{name} shape, axis {axis}");
                return Err(Error::invalid(argument, found, format!("1 or {full}")));
            }
        }
        // As for tensors; a shape without rows may still announce a mask beyond 2^64 elements.
        let elements = self.0.iter().try_fold(1_u64, |n, &axis| n.checked_mul(axis.into()));
        if elements.is_none_or(|n| n > 1 << 46) {
            let found = format!("{:?}", self.0);
            return Err(Error::invalid(format!("{name} shape"), found, "at most 2^46 elements"));
        }
        Ok(())
    }
}
