//! Arrays of numpy: `.npy` files, and `.npz` files, which are zips of them.
//!
//! Every size in a header is checked against the bytes that are there before anything is allocated
//! for it, so that a damaged file is an error and never a panic.

use std::fmt::{Display, Write as _};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use half::f16;
use npyz::npz::NpzArchive;

use crate::error::{self, Error};

/// Largest array that is read, in bytes.
const MAX_BYTES: u64 = 1 << 32;

/// An open `.npz` file of named arrays.
pub struct Arrays {
    path: PathBuf,
    archive: NpzArchive<BufReader<File>>,
}

/// One array in C order, widened to f64 (exact but for 64-bit integers beyond 2^53), with its shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Sizes, outermost first; empty for a scalar.
    pub shape: Vec<u64>,
    /// Elements.
    pub values: Vec<f64>,
    /// Whether it was stored as booleans.
    pub is_bool: bool,
    /// Whether it was stored as floating-point numbers.
    pub is_float: bool,
}

impl Arrays {
    /// Opens a `.npz` file.
    ///
    /// # Errors
    /// An invalid-argument error that names the file.
    pub fn open(path: &Path) -> error::Result<Self> {
        let archive = NpzArchive::open(path)
            .map_err(|e| Error::invalid(path.display().to_string(), e, "a readable .npz file"))?;
        Ok(Self { path: path.to_owned(), archive })
    }

    /// Whether there is an array of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.archive.array_names().any(|known| known == name)
    }

    /// The names of its arrays, as they lie in the file.
    pub fn names(&self) -> Vec<String> {
        self.archive.array_names().map(str::to_owned).collect()
    }

    /// Reads an array.
    ///
    /// # Errors
    /// An invalid-argument error that names the file, the array and what is wrong with it.
    pub fn get(&mut self, name: &str) -> error::Result<Array> {
        let argument = format!("{}, array {name:?}", self.path.display());
        let file = npyz::npz::file_name_from_array_name(name);
        let mut bytes = Vec::new();
        self.archive
            .zip_archive()
            .by_name(&file)
            .map_err(|e| Error::invalid(&argument, e, "an array of this name"))?
            .take(MAX_BYTES)
            .read_to_end(&mut bytes)
            .map_err(|e| Error::invalid(&argument, e, "an undamaged array"))?;
        decode(&bytes).map_err(|problem| Error::invalid(&argument, problem, "a .npy array"))
    }
}

/// Reads a `.npy` file.
///
/// # Errors
/// An invalid-argument error that names the file and what is wrong with it.
pub fn read(path: &Path) -> error::Result<Array> {
    let argument = path.display().to_string();
    let unreadable = |e| Error::invalid(&argument, e, "a readable .npy file");
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes))
        .map_err(|e| unreadable(e.to_string()))?;
    decode(&bytes).map_err(unreadable)
}

/// The bytes of a `.npy` file of f32, of as many values as the shape has elements.
pub fn encode(shape: &[u64], values: &[f64]) -> Vec<u8> {
    let mut axes = String::new();
    for axis in shape {
        // Writing to a String cannot fail.
        let _ = write!(axes, "{axis}, ");
    }
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({axes}), }}");
    // Signature, version and size are 10 bytes; data starts at a multiple of 64 after a newline.
    let size = (10 + header.len() + 1).next_multiple_of(64) - 10;
    while header.len() < size - 1 {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((size as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(values.iter().flat_map(|x| (*x as f32).to_le_bytes()));
    bytes
}

/// Decodes a `.npy` file; the error says what is wrong with it.
fn decode(bytes: &[u8]) -> Result<Array, String> {
    let too_short = || "a header cut short".to_owned();
    let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or("no .npy signature")?;
    let (version, rest) = rest.split_at_checked(2).ok_or_else(too_short)?;
    let width = if version[0] == 1 { 2 } else { 4 };
    let (size, rest) = rest.split_at_checked(width).ok_or_else(too_short)?;
    let size = size.iter().rev().fold(0_usize, |n, byte| n << 8 | usize::from(*byte));
    let (header, data) = rest.split_at_checked(size).ok_or_else(too_short)?;
    let header = std::str::from_utf8(header).map_err(|e| format!("a header that is {e}"))?;

    let fortran = field(header, "fortran_order")?.starts_with("True");
    let shape = shape(field(header, "shape")?)?;
    let descr = field(header, "descr")?;
    let dtype = descr.split(['\'', '"']).nth(1).ok_or_else(|| unreadable("descr", descr))?;
    let elements = shape.iter().try_fold(1_u64, |n, &axis| n.checked_mul(axis));
    let elements = elements.ok_or_else(|| format!("shape {shape:?}, which overflows"))?;
    let values = elements_of(dtype, data)?;
    if values.len() as u64 != elements {
        return Err(format!("{} elements of data for shape {shape:?}", values.len()));
    }
    let values = if fortran { to_c_order(&shape, &values) } else { values };
    let is_float = dtype.contains('f');
    Ok(Array { shape, values, is_bool: dtype == "|b1", is_float })
}

fn elements_of(dtype: &str, data: &[u8]) -> Result<Vec<f64>, String> {
    Ok(match dtype {
        "<f8" => numbers(data, f64::from_le_bytes),
        "<f4" => numbers(data, |b| f32::from_le_bytes(b).into()),
        "<f2" => numbers(data, |b| f16::from_le_bytes(b).into()),
        "<i8" => numbers(data, |b| i64::from_le_bytes(b) as f64),
        "<u8" => numbers(data, |b| u64::from_le_bytes(b) as f64),
        "<i4" => numbers(data, |b| i32::from_le_bytes(b).into()),
        "<u4" => numbers(data, |b| u32::from_le_bytes(b).into()),
        "<i2" => numbers(data, |b| i16::from_le_bytes(b).into()),
        "<u2" => numbers(data, |b| u16::from_le_bytes(b).into()),
        "|i1" => numbers(data, |b| i8::from_le_bytes(b).into()),
        "|u1" => numbers(data, |[b]| b.into()),
        "|b1" => numbers(data, |[b]| u8::from(b != 0).into()),
        other => return Err(format!("dtype {other}, not a little-endian float, integer or bool")),
    })
}

/// Elements with the first axis fastest, reordered to the last axis fastest.
fn to_c_order(shape: &[u64], values: &[f64]) -> Vec<f64> {
    let mut strides = Vec::new();
    let mut step = 1;
    for axis in shape {
        strides.push(step);
        step *= *axis as usize;
    }
    let position = |mut i: usize| {
        let axes = shape.iter().zip(&strides).rev();
        let mut at = 0;
        for (axis, stride) in axes {
            at += i % *axis as usize * stride;
            i /= *axis as usize;
        }
        at
    };
    (0..values.len()).map(|i| values[position(i)]).collect()
}

fn numbers<const N: usize>(data: &[u8], read: impl Fn([u8; N]) -> f64) -> Vec<f64> {
    data.as_chunks::<N>().0.iter().map(|bytes| read(*bytes)).collect()
}

/// The text after `'name':` in a header dictionary.
fn field<'a>(header: &'a str, name: &str) -> Result<&'a str, String> {
    let quoted = [format!("'{name}'"), format!("\"{name}\"")];
    let after = quoted.iter().find_map(|key| Some(header.split_once(key.as_str())?.1));
    let value = after.and_then(|text| text.trim_start().strip_prefix(':'));
    value.map(str::trim_start).ok_or_else(|| format!("a header without {name}"))
}

fn shape(text: &str) -> Result<Vec<u64>, String> {
    let inner = text.strip_prefix('(').and_then(|text| Some(text.split_once(')')?.0));
    let inner = inner.ok_or_else(|| unreadable("shape", text))?;
    let axes = inner.split(',').map(str::trim).filter(|axis| !axis.is_empty());
    axes.map(|axis| axis.parse().map_err(|_| unreadable("shape", inner))).collect()
}

fn unreadable(name: &str, text: impl Display) -> String {
    format!("a header with {name} {text}")
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};

    fn npy(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn arrays_are_read() -> Result<(), String> {
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1), }   \n";
        let data: Vec<u8> = [1.5_f32, -2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        let array = decode(&npy(header, &data))?;
        assert_eq!((array.shape, array.values), (vec![2, 1], vec![1.5, -2.0]));
        let header = "{'descr': '|b1', 'fortran_order': False, 'shape': (3,)}";
        assert_eq!(decode(&npy(header, &[1, 0, 1]))?.values, [1.0, 0.0, 1.0]);
        // Column by column: [[0, 1, 2], [3, 4, 5]] is stored 0 3 1 4 2 5.
        let header = "{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3)}";
        let values = decode(&npy(header, &[0, 3, 1, 4, 2, 5]))?.values;
        assert_eq!(values, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        Ok(())
    }

    #[test]
    fn what_is_written_is_read_back() -> Result<(), String> {
        for shape in [&[2_u64, 3][..], &[6], &[]] {
            let values: Vec<f64> =
                (0..shape.iter().product::<u64>()).map(|i| i as f64 - 2.5).collect();
            let bytes = encode(shape, &values);
            let data = bytes.len() - 4 * values.len();
            assert_eq!(data % 64, 0);
            let array = decode(&bytes)?;
            assert_eq!((array.shape.as_slice(), array.values), (shape, values));
        }
        Ok(())
    }

    #[test]
    fn damaged_arrays_are_errors() {
        let shape = |shape| format!("{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}");
        let huge = "(18446744073709551615, 18446744073709551615)";
        for shape_text in ["(2,)", "(-1,)", "(x,)", "3", "(1", huge, "(99999999999999999999999,)"] {
            assert!(decode(&npy(&shape(shape_text), &[0; 8])).is_err(), "{shape_text}");
        }
        assert!(decode(&npy(&shape("(1,)").replace("<f8", ">f8"), &[0; 8])).is_err());
        assert!(decode(&npy(&shape("(1,)").replace("'<f8'", "[('a'"), &[0; 8])).is_err());
        assert!(decode(&npy("{}", &[])).is_err());
        let whole = npy(&shape("(1,)"), &[0; 8]);
        for cut in 0..whole.len() {
            assert!(decode(&whole[..cut]).is_err(), "cut at {cut}");
        }
        assert!(decode(&whole).is_ok());
    }
}
