//! Objects of other devices, as far as wgpu lets them be known: it hides which device made a buffer or owns a
//! queue, and only says so where they meet.
//!
//! What another `wgpu::Instance` made cannot be told apart: its handles are numbers that mean something else here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::scoped;
use crate::error::{Error, Result};

/// The argument of the error for an object that is not of the device, before it has a better name.
const SOME_BUFFER: &str = "buffer";

/// The error where wgpu says that objects of two devices met.
pub(super) fn foreign(description: &str) -> Option<Error> {
    // wgpu-core's words, and a browser's.
    let words = ["doesn't match Device", "cannot be used with [Device"];
    words.iter().any(|words| description.contains(words)).then(|| foreign_buffer(SOME_BUFFER))
}

fn foreign_buffer(name: &str) -> Error {
    Error::invalid(name, "a buffer of another device", "one of the engine's device")
}

/// Gives the error about some buffer of another device the name of that buffer.
pub(crate) fn named<T>(
    result: Result<T>,
    device: &wgpu::Device,
    buffers: &[(&str, &wgpu::Buffer)],
) -> Result<T> {
    match result {
        Err(error) if error.argument() == Some(SOME_BUFFER) => {
            let other = buffers.iter().find(|(_, buffer)| copies(device, &[*buffer]).is_err());
            Err(other.map_or(error, |(name, _)| foreign_buffer(name)))
        }
        result => result,
    }
}

/// Checks that buffers which are only copied from, where no bind group would tell, are the device's.
pub(crate) fn check_sources(
    device: &wgpu::Device,
    buffers: &[(&str, &wgpu::Buffer)],
) -> Result<()> {
    if buffers.is_empty() {
        return Ok(());
    }
    let all: Vec<&wgpu::Buffer> = buffers.iter().map(|(_, buffer)| *buffer).collect();
    named(copies(device, &all), device, buffers)
}

/// Records copies of nothing, which wgpu checks all the same; an error where it finds a buffer of another device.
fn copies(device: &wgpu::Device, buffers: &[&wgpu::Buffer]) -> Result<()> {
    let usage = wgpu::BufferUsages::COPY_DST;
    let target = super::create_buffer(device, "nothing", 16, usage)?;
    let recorded = scoped(device, "checking buffers", 0, || {
        let mut encoder = device.create_command_encoder(&Default::default());
        for buffer in buffers {
            encoder.copy_buffer_to_buffer(buffer, 0, &target, 0, 0);
        }
        encoder.finish()
    });
    match recorded {
        // A buffer that may not be copied from is not what is looked for here.
        Err(error) if error.is_internal() => Ok(()),
        result => result.map(|_| ()),
    }
}

/// Whether a queue is the device's own; `None` where that cannot be said while the device works.
///
/// A callback of the queue is called when its own device is polled, and by no other. wgpu would give an error of
/// a submission to the queue's device, where nobody here could see it.
pub(crate) fn owns_queue(device: &wgpu::Device, queue: &wgpu::Queue) -> Option<bool> {
    if cfg!(target_arch = "wasm32") {
        return None;
    }
    let called = Arc::new(AtomicBool::new(false));
    let flag = called.clone();
    queue.on_submitted_work_done(move || flag.store(true, Ordering::Release));
    // A thread that polls at the same moment may have taken the callback and be about to call it.
    for patience in 0..20 {
        let idle = matches!(device.poll(wgpu::PollType::Poll), Ok(wgpu::PollStatus::QueueEmpty));
        if called.load(Ordering::Acquire) {
            return Some(true);
        }
        if !idle {
            return None;
        }
        std::thread::sleep(Duration::from_millis(patience));
    }
    Some(false)
}
