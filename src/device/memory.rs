//! Buffers.

use super::scoped;
use crate::error::{Error, Result};

/// Creates a buffer of at least `bytes` (rounded up to 16; never empty).
pub(crate) fn create_buffer(
    device: &wgpu::Device,
    label: &str,
    bytes: u64,
    usage: wgpu::BufferUsages,
) -> Result<wgpu::Buffer> {
    let size = checked_size(device, label, bytes)?;
    scoped(device, label, size, || {
        device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size,
            usage,
            mapped_at_creation: false,
        })
    })
}

/// Creates a buffer that holds `contents`, padded with zeros to 16 bytes.
pub(crate) fn upload(
    device: &wgpu::Device,
    label: &str,
    contents: &[u8],
    usage: wgpu::BufferUsages,
) -> Result<wgpu::Buffer> {
    let size = checked_size(device, label, contents.len() as u64)?;
    let buffer = scoped(device, label, size, || {
        device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size,
            usage,
            mapped_at_creation: true,
        })
    })?;
    let mut view = buffer
        .get_mapped_range_mut(..)
        // Creation reported no error, yet there is no buffer: that is how a lost device answers.
        .map_err(|e| Error::device_lost(format!("writing {label}"), e.to_string()))?;
    view.slice(..contents.len()).copy_from_slice(contents);
    drop(view);
    buffer.unmap();
    Ok(buffer)
}

fn checked_size(device: &wgpu::Device, label: &str, bytes: u64) -> Result<u64> {
    let size = bytes.max(1).checked_next_multiple_of(16).unwrap_or(u64::MAX);
    if size > device.limits().max_buffer_size {
        return Err(Error::out_of_memory(label, size));
    }
    Ok(size)
}
