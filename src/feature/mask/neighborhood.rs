//! Key j is visible to row i iff it lies in i's window on every axis of a grid: images and volumes.
//!
//! The window of i on an axis of n positions (NATTEN: Hassani et al., 2023) holds `size` positions, is led
//! by every `stride`-th position, shifts at the borders so that it always holds as many, and takes every
//! `dilation`-th position. On a causal axis it ends at i.

use std::ops::Range;

use super::{Kind, Mask};
use crate::error::{Error, Result};
use crate::feature::{Operands, Parameter, Position, Setting, Slot, slot};
use crate::tensor::Shape;

/// Of each axis: positions, window, step of windows and dilation.
const AXES: [[Parameter; 4]; 3] = [
    [
        Parameter::i32("near_n0"),
        Parameter::i32("near_size0"),
        Parameter::i32("near_stride0"),
        Parameter::i32("near_dilation0"),
    ],
    [
        Parameter::i32("near_n1"),
        Parameter::i32("near_size1"),
        Parameter::i32("near_stride1"),
        Parameter::i32("near_dilation1"),
    ],
    [
        Parameter::i32("near_n2"),
        Parameter::i32("near_size2"),
        Parameter::i32("near_stride2"),
        Parameter::i32("near_dilation2"),
    ],
];

/// Bit a: axis a is causal.
const CAUSAL: Parameter = Parameter::u32("near_causal");

pub(crate) const SLOT: Slot = slot!(
    "mask",
    "neighborhood",
    AXES[0][0],
    AXES[0][1],
    AXES[0][2],
    AXES[0][3],
    AXES[1][0],
    AXES[1][1],
    AXES[1][2],
    AXES[1][3],
    AXES[2][0],
    AXES[2][1],
    AXES[2][2],
    AXES[2][3],
    CAUSAL,
)
.narrowing()
.titled("neighbourhoods");

/// One axis of a grid and the window on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Axis {
    /// Positions.
    pub n: u32,
    /// Keys of a window.
    pub size: u32,
    /// Positions that share a window; 1 gives each its own.
    #[cfg_attr(feature = "serde", serde(default = "one"))]
    pub stride: u32,
    /// Distance between the keys of a window.
    #[cfg_attr(feature = "serde", serde(default = "one"))]
    pub dilation: u32,
    /// Whether a window ends at its own position.
    #[cfg_attr(feature = "serde", serde(default))]
    pub causal: bool,
}

#[cfg(feature = "serde")]
fn one() -> u32 {
    1
}

/// A window of neighbours on a grid of up to three axes, the last running fastest. q and k are both the
/// points of the grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Neighborhood(pub [Axis; 3]);

impl Axis {
    /// `n` positions, each with the `size` nearest.
    pub fn new(n: u32, size: u32) -> Self {
        Self { n, size, stride: 1, dilation: 1, causal: false }
    }

    /// Whether j is in the window of i; never where the axis is none that a call may have.
    pub fn sees(&self, i: u32, j: u32) -> bool {
        if self.dilation == 0 || self.stride == 0 || self.size == 0 {
            return false;
        }
        let class = i % self.dilation;
        if j % self.dilation != class {
            return false;
        }
        let n = i64::from(self.n.saturating_sub(class).div_ceil(self.dilation));
        let (i, j) = (i64::from(i / self.dilation), i64::from(j / self.dilation));
        let (size, stride) = (i64::from(self.size), i64::from(self.stride));
        if self.causal {
            let leader = (i / stride * stride + stride - 1).min(n - 1);
            return ((leader - size + 1).max(0)..=i).contains(&j);
        }
        let leader = (i / stride * stride + stride / 2).min(n - 1);
        let (left, right) = (size / 2, size / 2 + size % 2 - 1);
        let shift = if leader + right >= n { n - right - leader - 1 } else { 0 };
        let start = (leader - left).max(0) + shift;
        (start..start + size).contains(&j)
    }

    /// Most positions between a row and a key of its window, in either direction.
    fn reach(&self) -> i64 {
        (i64::from(self.size) + i64::from(self.stride)) * i64::from(self.dilation)
    }
}

impl Neighborhood {
    /// A sequence: each position sees the `size` nearest.
    pub fn line(n: u32, size: u32) -> Self {
        Self([Axis::new(1, 1), Axis::new(1, 1), Axis::new(n, size)])
    }

    /// An image of `rows` by `columns`: each pixel sees the `size` by `size` nearest.
    pub fn image(rows: u32, columns: u32, size: u32) -> Self {
        Self([Axis::new(1, 1), Axis::new(rows, size), Axis::new(columns, size)])
    }

    /// Points of the grid.
    pub fn points(&self) -> u64 {
        self.0.iter().fold(1, |points: u64, axis| points.saturating_mul(axis.n.into()))
    }

    fn at(&self, i: u32) -> [u32; 3] {
        let [_, rows, columns] = self.0.map(|axis| axis.n);
        [i / (rows * columns), i / columns % rows, i % columns]
    }
}

impl Mask for Neighborhood {
    fn slot(&self) -> Slot {
        SLOT
    }

    fn text(&self) -> String {
        let axis = |a: &Axis| {
            let causal = if a.causal { "c" } else { "" };
            format!("{}:{}/{}*{}{causal}", a.n, a.size, a.stride, a.dilation)
        };
        // Leading axes of one point go without saying.
        let axes = self.0.iter().skip_while(|a| **a == Axis::new(1, 1)).map(axis);
        format!("neighborhood({})", axes.collect::<Vec<String>>().join(","))
    }

    fn validate(&self, shape: &Shape) -> Result<()> {
        for axis in self.0 {
            let Axis { n, size, stride, dilation, .. } = axis;
            let fits = n > 0 && size > 0 && dilation > 0 && stride > 0;
            // The smallest residue class must still hold a window.
            if !fits || stride > size || n / dilation.max(1) < size {
                let wanted = "1 <= stride <= size <= n / dilation";
                return Err(Error::invalid("neighborhood axis", format!("{axis:?}"), wanted));
            }
        }
        let (points, Shape { seq_q, seq_kv, .. }) = (self.points(), *shape);
        if points > 1 << 20 {
            // Positions are divided in f32.
            let found = format!("{points} points");
            return Err(Error::invalid("neighborhood", found, "at most 2^20"));
        }
        if points != u64::from(seq_q) || points != u64::from(seq_kv) {
            let found = format!("{points} points");
            let wanted = format!("seq_q and seq_kv, {seq_q} and {seq_kv}");
            return Err(Error::invalid("neighborhood", found, wanted));
        }
        Ok(())
    }

    fn unpacked(&self) -> Option<&'static str> {
        Some("none, or sequences that are not packed")
    }

    fn parameters(&self, _: &Shape) -> Vec<Setting> {
        let numbers = |axis: Axis| [axis.n, axis.size, axis.stride, axis.dilation];
        let values = self.0.into_iter().flat_map(numbers);
        let places = AXES.into_iter().flatten().zip(values);
        let causal = self.0.iter().rev().fold(0, |bits, axis| bits << 1 | u32::from(axis.causal));
        places.map(|(parameter, n)| parameter.is(n as i32)).chain([CAUSAL.is(causal)]).collect()
    }

    fn keeps(&self, at: &Position, _: &Operands<'_>, _: &Shape) -> bool {
        let (i, j) = (self.at(at.row), self.at(at.key));
        (0..3).all(|axis| self.0[axis].sees(i[axis], j[axis]))
    }

    fn narrow(&self, row: u32, _: i64, keys: Range<i64>) -> Range<i64> {
        let [_, rows, columns] = self.0.map(|axis| i64::from(axis.n));
        let steps = [rows * columns, columns, 1];
        let slowest = self.0.iter().position(|axis| axis.n > 1).unwrap_or(2);
        let (step, reach) = (steps[slowest], self.0[slowest].reach());
        let line = i64::from(row) / step;
        keys.start.max((line - reach) * step)..keys.end.min((line + reach + 1) * step)
    }
}

impl Kind for Neighborhood {
    fn examples(shape: &Shape) -> Vec<Self> {
        let image = (2..shape.seq_q.min(99)).find(|n| shape.seq_q.is_multiple_of(*n));
        let image = image.map(|rows| Self::image(rows, shape.seq_q / rows, 2));
        [Self::line(shape.seq_q, 3)].into_iter().chain(image).collect()
    }

    /// A grid of as many points; both sequences are its points.
    fn known(self, shape: &Shape) -> Self {
        let rows = shape.seq_q;
        let far = Axis { n: rows, size: 5, stride: 2, dilation: 3, causal: true };
        let side = if rows < 15 { Axis::new(rows, 1) } else { far };
        Self([Axis::new(1, 1), Axis::new(1, 1), side])
    }
}
