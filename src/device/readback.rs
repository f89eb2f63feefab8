//! Reading buffers back: the only waiting points, and they are named.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use futures_intrusive::channel::shared::{OneshotReceiver, oneshot_channel};

use super::create_buffer;
use crate::error::{Error, Result};

/// A copy of a buffer range on its way to the host.
///
/// It is recorded into an encoder; after that encoder's commands are submitted, wait for it with
/// [`read`](Self::read) or, outside browsers, `read_blocking`.
#[derive(Debug)]
pub struct Readback {
    device: wgpu::Device,
    staging: wgpu::Buffer,
    bytes: u64,
}

/// How a call waits for the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// The thread stands still.
    #[cfg(not(target_arch = "wasm32"))]
    Blocking,
    /// The future is pending.
    Awaiting,
}

type Mapped = std::result::Result<(), wgpu::BufferAsyncError>;

/// Waits until everything that was submitted is done.
///
/// # Errors
/// Device lost.
#[cfg(feature = "bench")]
pub(crate) async fn finished(device: &wgpu::Device, queue: &wgpu::Queue, wait: Wait) -> Result<()> {
    let lost = |reason: String| Error::device_lost("waiting for submissions", reason);
    match wait {
        #[cfg(not(target_arch = "wasm32"))]
        Wait::Blocking => {
            let polled = device.poll(wgpu::PollType::wait_indefinitely());
            polled.map(|_| ()).map_err(|e| lost(e.to_string()))
        }
        Wait::Awaiting => {
            let (sender, receiver) = oneshot_channel();
            queue.on_submitted_work_done(move || {
                let _ = sender.send(());
            });
            polled(device, &receiver).await.ok_or_else(|| lost("the device is gone".into()))
        }
    }
}

/// What a callback sends, with the device polled meanwhile; `None` where the device fails.
///
/// On native backends callbacks run only inside poll; in a browser that does nothing and the browser wakes the
/// channel.
async fn polled<T>(device: &wgpu::Device, receiver: &OneshotReceiver<T>) -> Option<T> {
    let mut received = pin!(receiver.receive());
    poll_fn(|context| {
        if let Poll::Ready(result) = received.as_mut().poll(context) {
            return Poll::Ready(result);
        }
        let polled = device.poll(wgpu::PollType::Poll);
        if cfg!(not(target_arch = "wasm32")) {
            context.waker().wake_by_ref();
        }
        if polled.is_err() { Poll::Ready(None) } else { Poll::Pending }
    })
    .await
}

impl Readback {
    /// Records the copy of `bytes` bytes at `offset` of `source` (usage `COPY_SRC`; `offset` and
    /// `bytes` multiples of 4).
    ///
    /// # Errors
    /// Invalid argument when the range is not in the buffer, out of memory when there is no room for
    /// the staging copy.
    pub fn record(
        device: &wgpu::Device,
        encoder: &mut wgpu::CommandEncoder,
        source: &wgpu::Buffer,
        offset: u64,
        bytes: u64,
    ) -> Result<Self> {
        let end = offset.checked_add(bytes);
        if end.is_none_or(|end| end > source.size())
            || !offset.is_multiple_of(4)
            || !bytes.is_multiple_of(4)
        {
            let found = format!("{bytes} B at offset {offset}");
            let wanted = format!("multiples of 4 within {} B", source.size());
            return Err(Error::invalid("readback range", found, wanted));
        }
        if !source.usage().contains(wgpu::BufferUsages::COPY_SRC) {
            let found = format!("{:?}", source.usage());
            return Err(Error::invalid("readback source usage", found, "COPY_SRC"));
        }
        let usage = wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ;
        let staging = create_buffer(device, "readback", bytes, usage)?;
        if bytes > 0 {
            encoder.copy_buffer_to_buffer(source, offset, &staging, 0, bytes);
        }
        Ok(Self { device: device.clone(), staging, bytes })
    }

    /// Waits, without blocking the thread, and returns the bytes. Call after submitting.
    ///
    /// The future polls the device itself, so it completes under any executor.
    ///
    /// # Errors
    /// Device lost.
    pub async fn read(self) -> Result<Vec<u8>> {
        let receiver = self.map();
        let result = polled(&self.device, &receiver).await;
        self.finish(result)
    }

    /// The bytes, waited for in the given way.
    pub(crate) async fn get(self, wait: Wait) -> Result<Vec<u8>> {
        match wait {
            #[cfg(not(target_arch = "wasm32"))]
            Wait::Blocking => self.read_blocking(),
            Wait::Awaiting => self.read().await,
        }
    }

    /// Blocks the thread until the bytes are there. Call after submitting. Not in a browser, where nothing may block.
    ///
    /// # Errors
    /// Device lost.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read_blocking(self) -> Result<Vec<u8>> {
        let receiver = self.map();
        self.device
            .poll(wgpu::PollType::wait_indefinitely())
            .map_err(|e| Error::device_lost("waiting for a readback", e.to_string()))?;
        let result = pollster::block_on(receiver.receive());
        self.finish(result)
    }

    fn map(&self) -> OneshotReceiver<Mapped> {
        let (sender, receiver) = oneshot_channel();
        self.staging.map_async(wgpu::MapMode::Read, .., move |result| {
            // The receiver may be gone: then nobody waits any more.
            let _ = sender.send(result);
        });
        receiver
    }

    fn finish(&self, result: Option<Mapped>) -> Result<Vec<u8>> {
        let lost = |reason: String| Error::device_lost("reading a buffer back", reason);
        match result {
            Some(Ok(())) => {}
            Some(Err(e)) => return Err(lost(e.to_string())),
            None => return Err(lost("the mapping was dropped".into())),
        }
        let view = self
            .staging
            .get_mapped_range(..)
            .map_err(|e| Error::internal("reading a buffer back", e.to_string()))?;
        let bytes = view[..self.bytes as usize].to_vec();
        drop(view);
        self.staging.unmap();
        Ok(bytes)
    }
}
