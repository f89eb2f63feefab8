//! Burn's tensors of a GPU: where they lie, and new ones.
//!
//! Nothing passes through the host. A tensor's buffer is asked of Burn's server, which first submits what is recorded
//! for it; what is recorded here is submitted to the same queue before anything of Burn's that follows. So the queue
//! alone keeps the order, and no one waits.

use std::any::Any;

use burn::backend::{BackendTensor, Cube, DispatchKindConversion, DispatchTensor};
use burn::tensor::DType as BurnType;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::wgpu::{AutoCompiler, WgpuResource, WgpuServer};
use cubecl::zspace::metadata::Metadata;
use cubecl::zspace::{Shape, Strides as BurnStrides};
use heedful::{BufferView, DType, Layout, Strides};

use crate::error::{Error, Result};

/// The tensor of Burn's CubeCL backend in a float tensor without gradients.
pub(crate) fn concrete(argument: &str, tensor: DispatchTensor) -> Result<CubeTensor> {
    match <DispatchTensor as DispatchKindConversion<Cube>>::try_into_backend(tensor) {
        Ok(BackendTensor::Float(tensor) | BackendTensor::Int(tensor)) => Ok(tensor),
        Ok(other) => Err(Error::invalid(argument, other.name(), "numbers")),
        Err(found) => Err(Error::invalid(argument, found, "a tensor of Burn's wgpu runtime")),
    }
}

/// A tensor's bytes; they stay where they are, and nobody else's, as long as it lives.
pub(crate) struct Place {
    resource: WgpuResource,
    /// Keeps the allocation in place; its type has no public name.
    _held: Box<dyn Any>,
}

impl Place {
    pub(crate) fn of(argument: &str, tensor: &CubeTensor) -> Result<Self> {
        let found = tensor.client.get_resource::<WgpuServer<AutoCompiler>>(tensor.handle.clone());
        let held = found.map_err(|error| Error::Burn(format!("{argument}: {error}")))?;
        Ok(Self { resource: held.resource().clone(), _held: Box::new(held) })
    }

    pub(crate) fn view(&self) -> BufferView<'_> {
        BufferView { buffer: &self.resource.buffer, offset: self.resource.offset }
    }
}

/// The storage type of a tensor.
pub(crate) fn dtype(argument: &str, tensor: &CubeTensor) -> Result<DType> {
    match tensor.dtype {
        BurnType::F32 | BurnType::Flex32 => Ok(DType::F32),
        BurnType::F16 => Ok(DType::F16),
        BurnType::BF16 => Ok(DType::Bf16),
        found => Err(Error::invalid(argument, format!("{found:?}"), "f32, f16 or bf16")),
    }
}

/// A `[batch, heads, seq, dim]` tensor as the engine reads it: any strides, columns adjacent. Others, as a transposed
/// one, are copied first; with `apart` so are those that hold an element twice, since a gradient lies as its tensor.
pub(crate) fn rows(tensor: CubeTensor, apart: bool) -> (CubeTensor, Layout) {
    let fits = |tensor: &CubeTensor| {
        let (shape, strides) = (tensor.meta.shape(), tensor.meta.strides());
        let adjacent = shape[3] == 1 || strides[3] == 1;
        !tensor.meta.is_tiled() && adjacent && (!apart || distinct(shape, strides))
    };
    let tensor = if fits(&tensor) { tensor } else { into_contiguous(tensor) };
    let (shape, strides) = (tensor.meta.shape(), tensor.meta.strides());
    // Of one element there is no neighbour: Burn may say any stride, and here 0 is as good.
    let stride = |axis: usize| if shape[axis] == 1 { 0 } else { strides[axis] as u64 };
    let layout = Layout::Strided(Strides { batch: stride(0), head: stride(1), row: stride(2) });
    (tensor, layout)
}

/// Whether no two elements are one.
fn distinct(shape: &[usize], strides: &[usize]) -> bool {
    let mut axes: Vec<_> = strides.iter().zip(shape).filter(|(_, n)| **n > 1).collect();
    axes.sort_unstable();
    let mut reach = 0;
    axes.into_iter().all(|(stride, n)| {
        let apart = *stride > reach;
        reach += stride * (n - 1);
        apart
    })
}

/// A tensor without gaps, in the order of its dimensions.
pub(crate) fn packed(tensor: CubeTensor) -> CubeTensor {
    into_contiguous(tensor)
}

/// The same elements with two dimensions in each other's place.
pub(crate) fn swapped(tensor: &CubeTensor, a: usize, b: usize) -> CubeTensor {
    let (mut shape, mut strides) = (tensor.meta.shape().to_vec(), tensor.meta.strides().to_vec());
    shape.swap(a, b);
    strides.swap(a, b);
    let meta = Metadata::new(Shape::from(shape), BurnStrides::from(strides.as_slice()));
    let (client, handle) = (tensor.client.clone(), tensor.handle.clone());
    CubeTensor::new(client, handle, meta, tensor.device.clone(), tensor.dtype)
}

/// A new tensor on the device of `like`; `elements` may be more than the shape's where strides leave gaps.
pub(crate) fn empty(
    like: &CubeTensor,
    dtype: BurnType,
    shape: &[usize],
    strides: &[usize],
) -> CubeTensor {
    let last = shape.iter().zip(strides).map(|(n, stride)| n.saturating_sub(1) * stride);
    let elements = if shape.contains(&0) { 0 } else { last.sum::<usize>() + 1 };
    // Whole words: the engine binds them.
    let bytes = (elements * dtype.size()).next_multiple_of(4);
    let handle = like.client.empty(bytes.max(4));
    let meta = Metadata::new(Shape::from(shape.to_vec()), BurnStrides::from(strides));
    CubeTensor::new(like.client.clone(), handle, meta, like.device.clone(), dtype)
}

/// Strides without gaps in the order of the dimensions.
pub(crate) fn gapless(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}
