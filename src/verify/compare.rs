//! The comparator: is a result what it should be, and if not, where and by how much?
//!
//! # The numerical contract
//! The truth `e` is the float64 reference, computed from exactly the inputs the kernel reads. For
//! every element the **class** is compared first: NaN must be NaN, +∞ must be +∞, −∞ must be −∞ and
//! finite must be finite, where the class wanted is that of `e` rounded to the storage type.
//! Finite elements are then compared by one of two rules.
//!
//! **Measured** (against the reference). For each row of the output
//! ```text
//! |x − e| ≤ 2 · e_row + floor_row
//! e_row     = max(largest error of the emulations in this row, median of those over the live rows)
//! floor_row = max(2 · probe, ε_storage · m) + 4 · ε_f32 · m,   m = max(|e| over the row, unit)
//! probe     = max over the row of |((e + c) − c) − e|, c = 0.3 · m, each operation rounded to the
//!             storage type
//! ```
//! `e_row` is the error of an honest computation in the same precision; the largest over several
//! orders of summation, and never less than is usual for the call, because a single order can be
//! right by luck. `floor_row` is the measured rounding of the storage type at the row's magnitude m,
//! at least one unit in its last place, plus what WGSL allows beyond correct rounding (a division may
//! be 2.5 f32 units off, an exponential 3); ε is the distance from 1 to the next value of the type.
//! `unit` is 0, except for log-sum-exp where it is 1: a logarithm near 0 is still the difference of
//! numbers that are not. A row that is exactly 0 in the reference and in every emulation is not
//! live: it must be exactly 0 (rows that see nothing), and does not count for the median.
//!
//! **Recorded** (against stored results). `|x − e| ≤ atol + rtol · |e|` for each element.

use std::fmt::Write;

use crate::tensor::DType;

/// How far from the expected value a finite element may be.
#[derive(Debug, Clone, PartialEq)]
pub enum Tolerance {
    /// One allowance for each row, see [`Tolerance::measured`].
    Measured {
        /// Largest |x − e| allowed in each row.
        rows: Vec<f64>,
        /// The type whose overflow decides the class wanted.
        dtype: DType,
    },
    /// |x − e| ≤ atol + rtol · |e| for each element.
    Recorded {
        /// Relative part.
        rtol: f64,
        /// Absolute part.
        atol: f64,
    },
}

/// The verdict of [`compare`], and where the result is worst.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// Whether lengths and classes agree and every element is within its allowance.
    pub pass: bool,
    /// Length expected and length found.
    pub lengths: (usize, usize),
    /// Elements whose class (NaN, +∞, −∞, finite) is wrong.
    pub class_mismatches: usize,
    /// Largest |x − e| over the elements that are finite in both.
    pub max_abs: f64,
    /// Largest |x − e| / |e| over those with e ≠ 0.
    pub max_rel: f64,
    /// Row of the worst element: the first of a wrong class, else the one furthest beyond (or
    /// nearest to) its allowance. `None` when nothing differs.
    pub worst_row: Option<usize>,
    /// Index of that element in the whole tensor.
    pub worst_element: Option<usize>,
    /// Expected and found value of that element.
    pub worst_values: Option<(f64, f64)>,
    /// Largest error divided by its allowance: at most 1 in a pass, ∞ where no error is allowed.
    pub tolerance_ratio: f64,
    row_len: usize,
}

impl Tolerance {
    /// Allowances from the errors of emulations, for a tensor of rows of `row_len` elements that is
    /// stored as `dtype`. `unit` is the least magnitude rounding is measured at: 0, or 1 for
    /// logarithms. Emulations of another length than `expected` are ignored beyond what they have.
    pub fn measured(
        expected: &[f64],
        emulated: &[&[f64]],
        row_len: usize,
        dtype: DType,
        unit: f64,
    ) -> Self {
        let row_len = row_len.max(1);
        let mut live = Vec::new();
        let mut errors = Vec::new();
        for (row, expected) in expected.chunks(row_len).enumerate() {
            let start = row * row_len;
            let emulated = || {
                let rows = emulated.iter().filter_map(|e| e.get(start..start + expected.len()));
                rows.flat_map(|e| e.iter().zip(expected))
            };
            let error = emulated()
                .filter(|(x, e)| x.is_finite() && e.is_finite())
                .fold(0.0, |worst, (x, e)| f64::max(worst, (x - e).abs()));
            let dead = expected.iter().all(|e| *e == 0.0) && emulated().all(|(x, _)| *x == 0.0);
            errors.push((error, dead));
            if !dead && expected.iter().any(|e| e.is_finite()) {
                live.push(error);
            }
        }
        let usual = median(live);
        let rows = expected.chunks(row_len).zip(errors).map(|(expected, (error, dead))| {
            let floor = floor_of(expected, dtype, unit);
            if dead && unit == 0.0 { 0.0 } else { 2.0 * error.max(usual) + floor }
        });
        Self::Measured { rows: rows.collect(), dtype }
    }

    fn allowance(&self, row: usize, expected: f64) -> f64 {
        match self {
            Self::Measured { rows, .. } => rows.get(row).copied().unwrap_or(0.0),
            Self::Recorded { rtol, atol } => atol + rtol * expected.abs(),
        }
    }

    fn stored(&self, expected: f64) -> f64 {
        match self {
            Self::Measured { dtype, .. } => dtype.round(expected),
            Self::Recorded { .. } => expected,
        }
    }
}

/// Compares a tensor of rows of `row_len` elements with what it should be.
///
/// ```
/// use heedful::verify::compare::{Tolerance, compare};
/// let tolerance = Tolerance::Recorded { rtol: 0.0, atol: 0.1 };
/// assert!(compare(&[1.0, 2.0], &[1.0, 2.05], 2, &tolerance).pass);
/// assert!(!compare(&[1.0, 2.0], &[1.0, f64::NAN], 2, &tolerance).pass);
/// ```
pub fn compare(
    expected: &[f64],
    found: &[f64],
    row_len: usize,
    tolerance: &Tolerance,
) -> Comparison {
    let row_len = row_len.max(1);
    let mut result = Comparison {
        pass: false,
        lengths: (expected.len(), found.len()),
        class_mismatches: 0,
        max_abs: 0.0,
        max_rel: 0.0,
        worst_row: None,
        worst_element: None,
        worst_values: None,
        tolerance_ratio: 0.0,
        row_len,
    };
    if expected.len() != found.len() {
        return result;
    }
    for (i, (&e, &x)) in expected.iter().zip(found).enumerate() {
        if class(tolerance.stored(e)) != class(x) {
            result.class_mismatches += 1;
            if result.class_mismatches == 1 {
                result.point_at(i, e, x);
            }
        } else if x.is_finite() {
            let error = (x - e).abs();
            result.max_abs = result.max_abs.max(error);
            if e != 0.0 {
                result.max_rel = result.max_rel.max(error / e.abs());
            }
            let ratio =
                if error == 0.0 { 0.0 } else { error / tolerance.allowance(i / row_len, e) };
            if ratio > result.tolerance_ratio {
                result.tolerance_ratio = ratio;
                if result.class_mismatches == 0 {
                    result.point_at(i, e, x);
                }
            }
        }
    }
    result.pass = result.class_mismatches == 0 && result.tolerance_ratio <= 1.0;
    result
}

impl Comparison {
    fn point_at(&mut self, element: usize, expected: f64, found: f64) {
        self.worst_row = Some(element / self.row_len);
        self.worst_element = Some(element);
        self.worst_values = Some((expected, found));
    }

    /// One line for people: what is wrong and where, or how near the limit a pass is.
    pub fn message(&self) -> String {
        let (expected, found) = self.lengths;
        if expected != found {
            return format!("length: found {found} elements, want {expected}");
        }
        let mut text = String::new();
        if self.class_mismatches > 0 {
            let n = self.class_mismatches;
            let _ = write!(text, "{n} of {expected} elements are NaN, ∞ or finite wrongly");
        } else {
            let (abs, ratio) = (self.max_abs, self.tolerance_ratio);
            let _ = write!(text, "largest error {abs:.3e}, {ratio:.3} of what is allowed");
        }
        if let (Some(i), Some((e, x))) = (self.worst_element, self.worst_values) {
            let (row, column) = (i / self.row_len, i % self.row_len);
            let _ = write!(text, "; worst at row {row}, column {column}: found {x:e}, want {e:e}");
        }
        text
    }
}

#[derive(PartialEq)]
enum Class {
    Nan,
    PlusInfinity,
    MinusInfinity,
    Finite,
}

fn class(x: f64) -> Class {
    match x {
        _ if x.is_nan() => Class::Nan,
        f64::INFINITY => Class::PlusInfinity,
        f64::NEG_INFINITY => Class::MinusInfinity,
        _ => Class::Finite,
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn floor_of(row: &[f64], dtype: DType, unit: f64) -> f64 {
    let finite = || row.iter().filter(|e| e.is_finite());
    let magnitude = finite().fold(unit, |m, e| m.max(e.abs()));
    let c = dtype.round(0.3 * magnitude);
    let probe = |e: f64| (dtype.round(dtype.round(e + c) - c) - e).abs();
    let worst = finite().map(|e| probe(*e)).filter(|p| p.is_finite()).fold(0.0, f64::max);
    let last_place = match dtype {
        DType::F32 => f64::from(f32::EPSILON),
        DType::F16 => f64::from(half::f16::EPSILON),
        DType::Bf16 => f64::from(half::bf16::EPSILON),
    };
    (2.0 * worst).max(last_place * magnitude) + 4.0 * f64::from(f32::EPSILON) * magnitude
}
