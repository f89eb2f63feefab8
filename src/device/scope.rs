//! Error scopes: wgpu's asynchronous errors as results of the call that caused them.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::foreign::foreign;
use crate::error::{Error, Result};

/// Runs `work` inside validation, out-of-memory and internal scopes, so that nothing it does can
/// reach the device's uncaptured-error handler (which panics unless the application replaced it).
///
/// The scope stack is per thread, and popped futures are ready at once on native backends, so no
/// await can come between. In a browser a pending error is reported by the browser instead.
pub(crate) fn scoped<T>(
    device: &wgpu::Device,
    during: &str,
    bytes: u64,
    work: impl FnOnce() -> T,
) -> Result<T> {
    let filters = [
        wgpu::ErrorFilter::Validation,
        wgpu::ErrorFilter::OutOfMemory,
        wgpu::ErrorFilter::Internal,
    ];
    let guards = filters.map(|filter| device.push_error_scope(filter));
    let value = work();
    let mut first = None;
    // Scopes are a stack: the last pushed is popped first.
    for guard in guards.into_iter().rev() {
        first = now(guard.pop()).flatten().or(first);
    }
    match first {
        None => Ok(value),
        Some(wgpu::Error::OutOfMemory { .. }) => Err(Error::out_of_memory(during, bytes)),
        Some(wgpu::Error::Validation { description, .. })
        | Some(wgpu::Error::Internal { description, .. }) => {
            if description.contains("device is lost")
                || description.contains("Parent device is lost")
            {
                return Err(Error::device_lost(during, description));
            }
            Err(foreign(&description).unwrap_or_else(|| Error::internal(during, description)))
        }
    }
}

/// The value of a future that is ready at once.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut context = Context::from_waker(Waker::noop());
    match pin!(future).poll(&mut context) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}
