//! Arrays from `.npy`, `.npz` and `.safetensors` files.

use std::path::PathBuf;

use half::{bf16, f16};
use heedful::Error;
use heedful::verify::npy::{self, Array, Arrays};
use safetensors::{Dtype, SafeTensors};

/// What the elements of an array must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Elements {
    Floats,
    /// Whole numbers from 0 that fit 32 bits.
    Counts,
    /// Whole numbers that fit 32 bits with a sign.
    Integers,
    /// Booleans, or integers that stand for them.
    Flags,
}

impl Elements {
    fn check(self, option: &str, array: &Array) -> Result<(), Error> {
        let found = match (array.is_bool, array.is_float) {
            (true, _) => "booleans",
            (_, true) => "floating-point numbers",
            _ => "integers",
        };
        let (right, wanted) = match self {
            Self::Floats => (array.is_float, "floating-point numbers"),
            Self::Counts => (!array.is_float && !array.is_bool, "integers from 0 to 2^32 - 1"),
            Self::Integers => {
                (!array.is_float && !array.is_bool, "integers from -2^31 to 2^31 - 1")
            }
            Self::Flags => (!array.is_float, "booleans or integers"),
        };
        if !right {
            return Err(Error::invalid(format!("--{option}"), found, wanted));
        }
        let range = match self {
            Self::Floats | Self::Flags => return Ok(()),
            Self::Counts => 0.0..=f64::from(u32::MAX),
            Self::Integers => f64::from(i32::MIN)..=f64::from(i32::MAX),
        };
        match array.values.iter().find(|x| !range.contains(*x)) {
            Some(x) => Err(Error::invalid(format!("--{option}"), x, wanted)),
            None => Ok(()),
        }
    }
}

/// Where named arrays come from.
pub(crate) enum Source {
    /// Names are paths of `.npy` files.
    Npy,
    /// Names are arrays of one `.npz` file.
    Npz(Box<Arrays>),
    /// Names are tensors of one `.safetensors` file.
    SafeTensors { path: PathBuf, bytes: Vec<u8> },
}

impl Source {
    pub(crate) fn open(
        npz: Option<&PathBuf>,
        safetensors: Option<&PathBuf>,
    ) -> Result<Self, Error> {
        if let Some(path) = npz {
            return Ok(Self::Npz(Box::new(Arrays::open(path)?)));
        }
        let Some(path) = safetensors else { return Ok(Self::Npy) };
        let bytes = std::fs::read(path)
            .map_err(|e| Error::invalid(path.display().to_string(), e, "a readable file"))?;
        Ok(Self::SafeTensors { path: path.clone(), bytes })
    }

    /// Names of the arrays of the file, as they lie in it; none where names are files.
    pub(crate) fn names(&self) -> Result<Vec<String>, Error> {
        match self {
            Self::Npy => Ok(Vec::new()),
            Self::Npz(arrays) => Ok(arrays.names()),
            Self::SafeTensors { path, bytes } => {
                let file = SafeTensors::deserialize(bytes).map_err(|e| {
                    Error::invalid(path.display().to_string(), e, "a readable .safetensors file")
                })?;
                let mut names: Vec<String> =
                    file.names().into_iter().map(|name| name.to_string()).collect();
                names.sort_unstable();
                Ok(names)
            }
        }
    }

    /// Reads the array that option `--{option}` names, of any shape.
    pub(crate) fn get(
        &mut self,
        option: &str,
        name: &str,
        elements: Elements,
    ) -> Result<Array, Error> {
        let array = self.read(option, name)?;
        elements.check(option, &array)?;
        Ok(array)
    }

    /// The elements of an array of exactly these axes, each with its name.
    pub(crate) fn of_shape(
        &mut self,
        option: &str,
        name: &str,
        elements: Elements,
        axes: &[(&str, u32)],
    ) -> Result<Vec<f64>, Error> {
        let array = self.get(option, name, elements)?;
        if array.shape.len() != axes.len() {
            let names: Vec<&str> = axes.iter().map(|(name, _)| *name).collect();
            let found = format!("shape {:?}", array.shape);
            return Err(Error::invalid(
                format!("--{option}"),
                found,
                format!("[{}]", names.join(", ")),
            ));
        }
        for (found, (axis, wanted)) in array.shape.iter().zip(axes) {
            if *found != u64::from(*wanted) {
                return Err(Error::invalid(format!("--{option}, axis {axis}"), found, wanted));
            }
        }
        Ok(array.values)
    }

    fn read(&mut self, option: &str, name: &str) -> Result<Array, Error> {
        match self {
            Self::Npy => npy::read(name.as_ref()),
            Self::Npz(arrays) => arrays.get(name),
            Self::SafeTensors { path, bytes } => {
                let argument = format!("--{option}: {}, tensor {name:?}", path.display());
                tensor(bytes, name)
                    .map_err(|problem| Error::invalid(argument, problem, "a readable tensor"))
            }
        }
    }
}

fn tensor(bytes: &[u8], name: &str) -> Result<Array, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
    let tensor = file.tensor(name).map_err(|e| e.to_string())?;
    let data = tensor.data();
    let values = match tensor.dtype() {
        Dtype::F64 => numbers(data, f64::from_le_bytes),
        Dtype::F32 => numbers(data, |b| f32::from_le_bytes(b).into()),
        Dtype::F16 => numbers(data, |b| f16::from_le_bytes(b).into()),
        Dtype::BF16 => numbers(data, |b| bf16::from_le_bytes(b).into()),
        Dtype::I64 => numbers(data, |b| i64::from_le_bytes(b) as f64),
        Dtype::I32 => numbers(data, |b| i32::from_le_bytes(b).into()),
        Dtype::U32 => numbers(data, |b| u32::from_le_bytes(b).into()),
        Dtype::U8 => numbers(data, |[b]| b.into()),
        Dtype::BOOL => numbers(data, |[b]| u8::from(b != 0).into()),
        other => return Err(format!("dtype {other:?}")),
    };
    Ok(Array {
        shape: tensor.shape().iter().map(|n| *n as u64).collect(),
        values,
        is_bool: tensor.dtype() == Dtype::BOOL,
        is_float: matches!(tensor.dtype(), Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16),
    })
}

fn numbers<const N: usize>(data: &[u8], read: impl Fn([u8; N]) -> f64) -> Vec<f64> {
    data.as_chunks::<N>().0.iter().map(|bytes| read(*bytes)).collect()
}
