//! Storage element types, and rounding of host values to them.

use std::{fmt, str::FromStr};

use half::{bf16, f16};

use crate::error::{Error, Result};

/// How elements of q, k, v and o are stored. Arithmetic is always f32 on the GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum DType {
    /// IEEE 754 binary32.
    #[default]
    F32,
    /// IEEE 754 binary16; needs no device feature (loads unpack 32-bit words where there is none).
    F16,
    /// bfloat16: the upper half of a binary32; never needs a device feature.
    Bf16,
}

impl DType {
    /// Every storage type, in the order they are documented.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Bf16];

    /// Bytes of one element.
    pub fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// The nearest value of this type (ties to even), widened back.
    pub fn round(self, x: f64) -> f64 {
        match self {
            Self::F32 => f64::from(x as f32),
            Self::F16 => f16::from_f64(x).to_f64(),
            Self::Bf16 => bf16::from_f64(x).to_f64(),
        }
    }

    /// Encodes values as the little-endian bytes a GPU buffer holds, each rounded to nearest.
    pub fn encode(self, values: impl IntoIterator<Item = f64>) -> Vec<u8> {
        let values = values.into_iter();
        match self {
            Self::F32 => values.flat_map(|x| (x as f32).to_le_bytes()).collect(),
            Self::F16 => values.flat_map(|x| f16::from_f64(x).to_le_bytes()).collect(),
            Self::Bf16 => values.flat_map(|x| bf16::from_f64(x).to_le_bytes()).collect(),
        }
    }

    /// Decodes what [`encode`](Self::encode) wrote; a trailing partial element is dropped.
    pub fn decode(self, bytes: &[u8]) -> Vec<f64> {
        match self {
            Self::F32 => bytes
                .chunks_exact(4)
                .map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])))
                .collect(),
            Self::F16 => {
                bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f64()).collect()
            }
            Self::Bf16 => {
                bytes.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f64()).collect()
            }
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        })
    }
}

impl FromStr for DType {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|dtype| dtype.to_string() == text)
            .ok_or_else(|| Error::invalid("dtype", format!("{text:?}"), "f32, f16 or bf16"))
    }
}
