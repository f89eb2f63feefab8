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
//! floor_row = max(2 · probe, ε_storage · m) + (4 + |lse|) · ε_f32 · m + tiny_f32
//! m         = max(|e| over the row, unit)
//! probe     = max over the row of |((e + c) − c) − e|, c = 0.3 · m, each operation rounded to the
//!             storage type
//! ```
//! - `e_row` is the error of an honest computation in the same precision: the largest over several
//!   orders of summation, and never less than is usual for the call, because a single order can be
//!   right by luck.
//! - On matrix units the same precision is f16 for operands and weights and f32 for sums, so there the emulations of
//!   [`Order::MATRIX`](crate::reference::Order::MATRIX) count as well.
//! - The first term of `floor_row` is the measured rounding of the storage type at the row's
//!   magnitude, at least one unit in its last place; ε is the distance from 1 to the next value.
//! - The second is what no f32 kernel can be held to. WGSL lets a division be 2.5 units off and an
//!   exponential 3. And the scores that carry the row lie near its log-sum-exp: each is an f32, known
//!   to half a unit of its own size, and rounded again when it is turned into base 2; a weight is
//!   relatively as wrong as its score is absolutely. `lse` is 0 where the output is no product of
//!   weights (scores, and the log-sum-exp itself).
//! - The third is what drivers may flush to 0, as WGSL allows: `tiny` is the smallest normal number of a
//!   type. For the same reason an element of an output is right as 0 as well where |e| < `tiny_storage`, and
//!   one emulation flushes weights and products, so that `e_row` knows what that does beside large values.
//! - `unit` is 0, but 1 for log-sum-exp and for scores: a logarithm near 0 is still the difference of
//!   numbers that are not.
//! - A row that is exactly 0 in the reference and in every emulation is not live: it does not count for the
//!   median, and where its lse says that it sees nothing (−∞, or none is given) it must be exactly 0. With
//!   unit 1 there is no such rule.
//!
//! Gradients are measured by the same rule ([`gradients`](crate::verify::gradients)), but for sums whose terms cancel:
//! the second term of `floor_row` is ε_f32 · max over the row of Σ |term|, each term (4 + |lse|) times, and a row must
//! be exactly 0 where it has no terms.
//!
//! # What is not finite
//! - A key that a row sees takes part in its sum whatever its weight: NaN in its v is NaN in o, ∞ is ∞, and
//!   NaN where the weight is 0 (ReLU, sparsemax) or rounds to 0 in f32. What one key takes (hard attention, a
//!   draw, monotonic attention) leaves the others out. A key that a row does not see never matters.
//! - Scores are f32: past its range they are ±∞. A score of −∞ by data (not by a mask, and a bias of −∞ is
//!   one) has weight 0 beside others. Where all that a row sees are −∞, or one is NaN or +∞, the weights of
//!   softmax, sparsemax and entmax are NaN, and so are o and lse. Biases of the lowest finite number are no
//!   −∞: where a row has nothing else, its o is the mean. Hard attention takes NaN and −∞ last, the first of
//!   them where there is nothing else.
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
        /// The type whose overflow decides the class wanted, and whose subnormal numbers may be 0.
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

/// What [`Tolerance::measured`] needs to know of one output tensor.
#[derive(Debug, Clone, Copy)]
pub struct Measurement<'a> {
    /// The truth.
    pub expected: &'a [f64],
    /// What emulations made of it, each as long as `expected`.
    pub emulated: &'a [&'a [f64]],
    /// Elements per row.
    pub row_len: usize,
    /// Storage type of the tensor.
    pub dtype: DType,
    /// Least magnitude that rounding is measured at: 0, or 1 for logarithms.
    pub unit: f64,
    /// Log-sum-exp of each row, where the tensor holds weights or weighted sums; else empty.
    pub lse: &'a [f64],
    /// What f32 arithmetic rounds in each element, in units of its ε; empty where a row's magnitude and lse say it.
    pub terms: &'a [f64],
}

impl Measurement<'_> {
    /// Largest error of the emulations in a row, and whether the row is live.
    fn error(&self, row: usize, expected: &[f64]) -> (f64, bool) {
        let start = row * self.row_len.max(1);
        let rows = self.emulated.iter().filter_map(|e| e.get(start..start + expected.len()));
        let pairs = || rows.clone().flat_map(|e| e.iter().zip(expected));
        let finite = pairs().filter(|(x, e)| x.is_finite() && e.is_finite());
        let error = finite.fold(0.0, |worst, (x, e)| f64::max(worst, (x - e).abs()));
        let zero = expected.iter().all(|e| *e == 0.0) && pairs().all(|(x, _)| *x == 0.0);
        (error, !zero && expected.iter().any(|e| e.is_finite()))
    }

    fn floor(&self, row: usize, expected: &[f64]) -> f64 {
        let finite = || expected.iter().filter(|e| e.is_finite());
        let round = |x: f64| self.dtype.round(x);
        let magnitude = finite().fold(self.unit, |m, e| m.max(e.abs()));
        let c = round(0.3 * magnitude);
        let probes = finite().map(|e| (round(round(e + c) - c) - e).abs());
        let probe = probes.filter(|p| p.is_finite()).fold(0.0, f64::max);
        let last_place = match self.dtype {
            DType::F32 => f64::from(f32::EPSILON),
            DType::F16 => f64::from(half::f16::EPSILON),
            DType::Bf16 => f64::from(half::bf16::EPSILON),
        };
        let lse = self.lse.get(row).filter(|lse| lse.is_finite()).map_or(0.0, |lse| lse.abs());
        let arithmetic = match self.terms.is_empty() {
            true => (4.0 + lse) * magnitude,
            false => self.terms(row).filter(|x| x.is_finite()).fold(0.0, f64::max),
        };
        let tiny = smallest_normal(DType::F32);
        let rounding = f64::from(f32::EPSILON) * arithmetic;
        (2.0 * probe).max(last_place * magnitude) + rounding + tiny
    }

    fn terms(&self, row: usize) -> impl Iterator<Item = f64> {
        let len = self.row_len.max(1);
        self.terms.iter().skip(row * len).take(len).copied()
    }

    /// Whether a row that is 0 in the reference and every emulation may be nothing else: it sees nothing.
    fn sees_nothing(&self, row: usize) -> bool {
        let nothing = self.lse.get(row).is_none_or(|lse| *lse == f64::NEG_INFINITY);
        self.unit == 0.0 && nothing && self.terms(row).all(|x| x == 0.0)
    }
}

impl Tolerance {
    /// The allowance of each row, from the errors of emulations.
    pub fn measured(of: &Measurement<'_>) -> Self {
        let rows = || of.expected.chunks(of.row_len.max(1)).enumerate();
        let errors: Vec<(f64, bool)> = rows().map(|(i, row)| of.error(i, row)).collect();
        let usual = median(errors.iter().filter(|(_, live)| *live).map(|(e, _)| *e).collect());
        let allowances = rows().zip(errors).map(|((i, row), (error, live))| {
            let exact = !live && of.sees_nothing(i);
            if exact { 0.0 } else { 2.0 * error.max(usual) + of.floor(i, row) }
        });
        Self::Measured { rows: allowances.collect(), dtype: of.dtype }
    }

    fn allowance(&self, row: usize, expected: f64) -> f64 {
        match self {
            Self::Measured { rows, .. } => rows.get(row).copied().unwrap_or(0.0),
            Self::Recorded { rtol, atol } => atol + rtol * expected.abs(),
        }
    }

    /// Whether an element may be 0 because the type has subnormal numbers only for it.
    fn may_vanish(&self, expected: f64) -> bool {
        match self {
            Self::Measured { dtype, .. } => expected.abs() < smallest_normal(*dtype),
            Self::Recorded { .. } => false,
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
            let vanished = x == 0.0 && tolerance.may_vanish(e);
            let right = error == 0.0 || vanished;
            let ratio = if right { 0.0 } else { error / tolerance.allowance(i / row_len, e) };
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
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn smallest_normal(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => f64::from(f32::MIN_POSITIVE),
        DType::F16 => f64::from(half::f16::MIN_POSITIVE),
        DType::Bf16 => f64::from(half::bf16::MIN_POSITIVE),
    }
}
