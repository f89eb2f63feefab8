//! How rows of keys and values are stored: in an element type, or quantised with scales of their own.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::tensor::DType;
use crate::tensor::quantised::{
    BLOCK, decode_int4, decode_int8, decode_mxfp4, encode_int4, encode_int8, encode_mxfp4,
    magnitude, power_below,
};
use crate::tensor::small_float::{E4M3, E5M2, SmallFloat};

/// Storage of k and v.
///
/// A row of `dim` channels is made of *units*: elements of a plain type, bytes of rows of 8 bits a channel, nibbles of
/// those of 4. They hold their scales behind their channels, if they have any, so that one buffer is all there is:
///
/// | storage | row | error of a channel |
/// |---|---|---|
/// | `Int8` | `dim` bytes, padded to 4, two's complement; one f32 scale | ≤ max \|row\| / 254 |
/// | `Int4` | `dim` nibbles, the lower index in the lower half, padded to 8; a bf16 scale per 32 channels, padded to a word | ≤ max \|block\| / 13.9 |
/// | `E4m3`, `E5m2` | `dim` bytes, padded to 4; no scale but [`KvScales`](crate::KvScales) | ≤ \|x\| / 16 or \|x\| / 8 down to 2^-6 or 2^-14 |
/// | `E4m3Row`, `E5m2Row` | the same, then one f32 scale | as above, relative to the scale |
/// | `Mxfp4` | `dim` e2m1 nibbles as `Int4`'s; an e8m0 power of two per 32 channels, a byte each, padded to a word | ≤ max \|block\| / 4 |
///
/// Padding is zeros. e4m3 and e5m2 are those of OFP8 (Micikevicius et al., 2022), e2m1 and e8m0 those of OCP
/// Microscaling Formats 1.0: of e8m0, 0 is 2^-127 and 255 is NaN.
///
/// Rows that are written here have a power of two as scale: with `E4m3Row` and `E5m2Row` the largest that brings the
/// row's magnitude, rounded as its channels are, to 128 or 16384 and more, with `Mxfp4` the largest that brings the
/// block's to 4 and more (section 6.3 of OCP's; what is beyond 6 becomes 6). Rounding is to nearest, ties to even.
/// Finite magnitudes beyond 448 become 448 in `E4m3`, beyond 57344 so in `E5m2`, since a cache is better off with a
/// large key than with NaN; ∞ stays visible, as NaN in `E4m3`, which has none.
///
/// A channel is its number times the scale. Errors of int8 and int4 are those of rounding to the nearest integer; a
/// bf16 scale is rounded up, by at most 1 part in 128, so int4 overflows above 3.3e38; numbers of `E4m3Row` and
/// `E5m2Row` that round to 2^128 become ±∞. A row or block that holds NaN or ±∞ is NaN throughout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum Storage {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// bfloat16.
    Bf16,
    /// 8 bits with a scale per row (one head of one token).
    Int8,
    /// 4 bits with a scale per 32 channels.
    Int4,
    /// 8-bit floating point with 4 bits of exponent (e4m3fn).
    E4m3,
    /// 8-bit floating point with 5 bits of exponent.
    E5m2,
    /// [`E4m3`](Self::E4m3) with a scale per row (one head of one token).
    #[cfg_attr(feature = "serde", serde(rename = "e4m3-row"))]
    E4m3Row,
    /// [`E5m2`](Self::E5m2) with a scale per row.
    #[cfg_attr(feature = "serde", serde(rename = "e5m2-row"))]
    E5m2Row,
    /// 4-bit floating point (e2m1) with a power of two per 32 channels.
    Mxfp4,
}

/// Scales that rows hold behind their channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scales {
    /// None.
    None,
    /// One f32.
    Row,
    /// One per 32 channels.
    Blocks,
}

impl From<DType> for Storage {
    fn from(dtype: DType) -> Self {
        match dtype {
            DType::F32 => Self::F32,
            DType::F16 => Self::F16,
            DType::Bf16 => Self::Bf16,
        }
    }
}

impl Storage {
    /// Every storage: plain types, integers, small floating-point numbers.
    pub const ALL: &'static [Self] = &[
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::Int8,
        Self::Int4,
        Self::E4m3,
        Self::E5m2,
        Self::E4m3Row,
        Self::E5m2Row,
        Self::Mxfp4,
    ];

    /// The element type of a plain storage.
    pub fn dtype(self) -> Option<DType> {
        match self {
            Self::F32 => Some(DType::F32),
            Self::F16 => Some(DType::F16),
            Self::Bf16 => Some(DType::Bf16),
            _ => None,
        }
    }

    /// The scales that rows hold.
    pub(crate) fn scales(self) -> Scales {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 | Self::E4m3 | Self::E5m2 => Scales::None,
            Self::Int8 | Self::E4m3Row | Self::E5m2Row => Scales::Row,
            Self::Int4 | Self::Mxfp4 => Scales::Blocks,
        }
    }

    /// By how much the exponent of a row's scale is below that of its largest magnitude.
    pub(crate) fn exponents_below(self) -> u32 {
        match self {
            Self::E4m3Row => 7,
            Self::E5m2Row => 14,
            _ => 0,
        }
    }

    /// Half of the last place of a channel's number, in the bits of a binary32: a row's largest magnitude is rounded
    /// before its scale is chosen, since a row that came back from here would have another one otherwise.
    pub(crate) fn half_place(self) -> u32 {
        self.small_float().map_or(0, SmallFloat::half_place)
    }

    /// The format of a channel of 8 bits.
    fn small_float(self) -> Option<&'static SmallFloat> {
        match self {
            Self::E4m3 | Self::E4m3Row => Some(&E4M3),
            Self::E5m2 | Self::E5m2Row => Some(&E5M2),
            _ => None,
        }
    }

    /// Bits of a unit.
    pub fn unit_bits(self) -> u64 {
        match self {
            Self::F32 => 32,
            Self::F16 | Self::Bf16 => 16,
            Self::Int8 | Self::E4m3 | Self::E5m2 | Self::E4m3Row | Self::E5m2Row => 8,
            Self::Int4 | Self::Mxfp4 => 4,
        }
    }

    /// Units of a row of `dim` channels, its scales included; `u32::MAX` where there would be more.
    pub fn row_units(self, dim: u32) -> u32 {
        let n = u64::from(dim);
        let units = match self {
            Self::E4m3 | Self::E5m2 => n.next_multiple_of(4),
            Self::Int8 | Self::E4m3Row | Self::E5m2Row => n.next_multiple_of(4) + 4,
            Self::Mxfp4 => n.next_multiple_of(8) + 8 * n.div_ceil(4 * BLOCK as u64),
            Self::Int4 => n.next_multiple_of(8) + 8 * n.div_ceil(BLOCK as u64).div_ceil(2),
            _ => n,
        };
        u32::try_from(units).unwrap_or(u32::MAX)
    }

    /// Bytes of `units` units; the largest number where there are more.
    pub fn bytes(self, units: u64) -> u64 {
        units.checked_mul(self.unit_bits()).map_or(u64::MAX, |bits| bits.div_ceil(8))
    }

    /// The row as it is after a way through this storage.
    pub fn round(self, row: &[f64]) -> Vec<f64> {
        self.decode(&self.encode(row), row.len())
    }

    /// A row's bytes.
    pub fn encode(self, row: &[f64]) -> Vec<u8> {
        match self.dtype() {
            Some(dtype) => dtype.encode(row.iter().copied()),
            None => match (self, self.small_float()) {
                (_, Some(format)) => self.encode_bytes(format, row),
                (Self::Int8, _) => encode_int8(row),
                (Self::Mxfp4, _) => encode_mxfp4(row),
                _ => encode_int4(row),
            },
        }
    }

    /// The `dim` channels of a row from its bytes.
    ///
    /// # Panics
    /// When there are fewer bytes than [`row_units`](Self::row_units) says.
    pub fn decode(self, bytes: &[u8], dim: usize) -> Vec<f64> {
        match self.dtype() {
            Some(dtype) => dtype.decode(&bytes[..dim * dtype.bytes() as usize]),
            None => match (self, self.small_float()) {
                (_, Some(format)) => self.decode_bytes(format, bytes, dim),
                (Self::Int8, _) => decode_int8(bytes, dim),
                (Self::Mxfp4, _) => decode_mxfp4(bytes, dim),
                _ => decode_int4(bytes, dim),
            },
        }
    }

    /// 8-bit floating-point numbers, and the row's scale where it has one.
    fn encode_bytes(self, format: &SmallFloat, row: &[f64]) -> Vec<u8> {
        let scaled = self.scales() == Scales::Row;
        let most = magnitude(row);
        let scale =
            if scaled { power_below(most, self.exponents_below(), self.half_place()) } else { 1.0 };
        let code = |x: &f64| format.encode(f64::from(*x as f32 / scale));
        let mut bytes: Vec<u8> = row.iter().map(code).collect();
        bytes.resize(row.len().next_multiple_of(4), 0);
        let stored = if most.is_finite() { scale } else { f32::NAN };
        bytes.extend(stored.to_le_bytes().into_iter().filter(|_| scaled));
        bytes
    }

    fn decode_bytes(self, format: &SmallFloat, bytes: &[u8], dim: usize) -> Vec<f64> {
        let at = dim.next_multiple_of(4);
        let scale = match self.scales() {
            Scales::Row => {
                f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
            }
            _ => 1.0,
        };
        bytes[..dim].iter().map(|code| f64::from(format.decode(*code) as f32 * scale)).collect()
    }
}

impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
            Self::E4m3 => "e4m3",
            Self::E5m2 => "e5m2",
            Self::E4m3Row => "e4m3-row",
            Self::E5m2Row => "e5m2-row",
            Self::Mxfp4 => "mxfp4",
        })
    }
}

impl FromStr for Storage {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = || {
            let names: Vec<String> = Self::ALL.iter().map(Self::to_string).collect();
            let names = names.join(", ");
            Error::invalid("storage", format!("{text:?}"), format!("one of {names}"))
        };
        Self::ALL.iter().copied().find(|storage| storage.to_string() == text).ok_or_else(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantised_rows_keep_their_error_budget_and_their_size() {
        for dim in [1, 3, 8, 31, 32, 33, 64, 65, 100] {
            let row: Vec<f64> = (0..dim).map(|i| ((i * 37 % 101) as f64 - 50.0) * 0.37).collect();
            for (storage, block, levels) in [
                (Storage::Int8, dim, 254.0),
                (Storage::Int4, BLOCK, 13.9),
                (Storage::E4m3Row, dim, 16.0),
                (Storage::E5m2Row, dim, 8.0),
                (Storage::E4m3, dim, 16.0),
                (Storage::E5m2, dim, 8.0),
                (Storage::Mxfp4, BLOCK, 4.0),
            ] {
                let bytes = storage.encode(&row);
                assert_eq!(bytes.len() as u64, storage.bytes(storage.row_units(dim as u32).into()));
                assert_eq!(bytes.len() % 4, 0);
                let back = storage.decode(&bytes, dim);
                for (chunk, found) in row.chunks(block).zip(back.chunks(block)) {
                    let most = chunk.iter().fold(0.0_f64, |m, x| m.max(x.abs()));
                    for (x, y) in chunk.iter().zip(found) {
                        let budget = most / levels * (1.0 + 1e-5);
                        assert!((x - y).abs() <= budget, "{storage} {dim}: {x} became {y}");
                    }
                }
                // What came back stays as it is.
                assert_eq!(storage.round(&back), back, "{storage} {dim}");
            }
        }
    }

    /// Also where the largest becomes a power of two by rounding, and small ones have few bits.
    #[test]
    fn what_came_back_stays_as_it_is() {
        for storage in Storage::ALL.iter().copied().filter(|x| x.dtype().is_none()) {
            for most in
                [1.0, 1.75, 1.87, 1.874, 1.875, 1.9, 1.93, 1.9375, 1.94, 1.999, 2.0, 3.0, 5.5]
            {
                let row: Vec<f64> = (0..32).map(|i| most * 0.7_f64.powi(i)).collect();
                let once = storage.round(&row);
                let near = |(x, y): (&f64, &f64)| (x - y).abs() <= 1e-6 * x.abs();
                let again = storage.round(&once);
                assert!(once.iter().zip(&again).all(near), "{storage} {most}: {once:?} {again:?}");
            }
        }
    }

    #[test]
    fn zeros_stay_zeros_and_what_is_not_finite_shows() {
        // Of huge numbers: steps of an integer and of its scale, and those of 3, 2 and 1 bits of a mantissa.
        for (storage, of_huge) in [
            (Storage::Int8, 0.08),
            (Storage::Int4, 0.08),
            (Storage::E4m3Row, 0.0625),
            (Storage::E5m2Row, 0.125),
            (Storage::Mxfp4, 0.25),
        ] {
            assert_eq!(storage.round(&[0.0; 5]), vec![0.0; 5]);
            for x in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                assert!(storage.round(&[1.0, x, 0.0]).iter().all(|x| x.is_nan()), "{storage} {x}");
            }
            // The smallest and the largest magnitudes there are.
            let tiny = storage.round(&[1e-45, -1e-45]);
            assert!(tiny.iter().all(|x| x.abs() <= 2e-38), "{storage} {tiny:?}");
            let huge = 3e38;
            assert!((storage.round(&[huge])[0] / huge - 1.0).abs() < of_huge, "{storage}");
        }
    }
}
