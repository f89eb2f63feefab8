//! Arrays from an `.npz` file: a zip of `.npy`, C order, little-endian.
//!
//! Every size in a header is checked against the bytes that are there before anything is allocated
//! for it, so that a damaged file is an error and never a panic.

use std::fmt::Display;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use npyz::npz::NpzArchive;

use crate::error::{self, Error};

/// Largest array that is read, in bytes.
const MAX_BYTES: u64 = 1 << 32;

/// An open file of named arrays.
pub(super) struct Arrays {
    path: PathBuf,
    archive: NpzArchive<BufReader<File>>,
}

/// One array, widened to f64 (exact for what a recorded case holds), with its shape.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Array {
    pub(super) shape: Vec<u64>,
    pub(super) values: Vec<f64>,
    pub(super) is_bool: bool,
}

impl Arrays {
    pub(super) fn open(path: &Path) -> error::Result<Self> {
        let archive = NpzArchive::open(path)
            .map_err(|e| Error::invalid(path.display().to_string(), e, "a readable .npz file"))?;
        Ok(Self { path: path.to_owned(), archive })
    }

    pub(super) fn get(&mut self, name: &str) -> error::Result<Array> {
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

    if field(header, "fortran_order")?.starts_with("True") {
        return Err("Fortran order".into());
    }
    let shape = shape(field(header, "shape")?)?;
    let descr = field(header, "descr")?;
    let dtype = descr.split(['\'', '"']).nth(1).ok_or_else(|| unreadable("descr", descr))?;
    let elements = shape.iter().try_fold(1_u64, |n, &axis| n.checked_mul(axis));
    let elements = elements.ok_or_else(|| format!("shape {shape:?}, which overflows"))?;
    let values: Vec<f64> = match dtype {
        "<f8" => numbers(data, f64::from_le_bytes),
        "<f4" => numbers(data, |b| f64::from(f32::from_le_bytes(b))),
        "<i8" => numbers(data, |b| i64::from_le_bytes(b) as f64),
        "<i4" => numbers(data, |b| f64::from(i32::from_le_bytes(b))),
        "|b1" => numbers(data, |[b]| f64::from(u8::from(b != 0))),
        other => return Err(format!("dtype {other}, not f64, f32, bool, i32 or i64")),
    };
    if values.len() as u64 != elements {
        return Err(format!("{} elements of data for shape {shape:?}", values.len()));
    }
    Ok(Array { shape, values, is_bool: dtype == "|b1" })
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
    use super::decode;

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
        assert!(decode(&npy(&shape("(1,)").replace("False", "True"), &[0; 8])).is_err());
        assert!(decode(&npy("{}", &[])).is_err());
        let whole = npy(&shape("(1,)"), &[0; 8]);
        for cut in 0..whole.len() {
            assert!(decode(&whole[..cut]).is_err(), "cut at {cut}");
        }
        assert!(decode(&whole).is_ok());
    }
}
