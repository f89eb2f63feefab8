//! One tensor of a bound call elsewhere: the bind groups that hold it are made anew, and nothing else.

use std::sync::Arc;

use crate::device;
use crate::engine::apart::shared_for;
use crate::engine::bound::{Bound, Recorded};
use crate::engine::dispatch::Dispatch;
use crate::engine::{BufferView, Engine};
use crate::error::{Error, Result};
use crate::problem::Operand;

/// A tensor's new place, with what binds it there.
struct Moved {
    at: usize,
    buffer: wgpu::Buffer,
    offset: u64,
    dispatches: Vec<(usize, Dispatch)>,
}

impl Bound {
    /// Binds one tensor elsewhere, without a new buffer: a cache that has grown, the next output of two in
    /// turn. Only the bind groups that hold it are made anew. What was recorded before keeps reading and
    /// writing the tensor where it was.
    ///
    /// The view starts as many bytes past a multiple of the device's `min_storage_buffer_offset_alignment`
    /// (256 at most) as the one before: bind anew where it cannot.
    ///
    /// # Errors
    /// As `Engine::bind`, and invalid argument for an engine of another device, a table, a tensor that the
    /// call does not have, or an offset that starts elsewhere between multiples of the alignment. The call is
    /// then bound as before.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn rebind<'a>(
        &mut self,
        engine: &Engine,
        operand: Operand,
        view: impl Into<BufferView<'a>>,
    ) -> Result<()> {
        let moved = self.recorded().moved(engine, operand, view.into())?;
        self.recorded().put(moved);
        Ok(())
    }

    /// `rebind` where the device's errors come later, as in a browser: it awaits them.
    ///
    /// # Errors
    /// As `rebind`.
    pub async fn rebind_async<'a>(
        &mut self,
        engine: &Engine,
        operand: Operand,
        view: impl Into<BufferView<'a>>,
    ) -> Result<()> {
        let (recorded, view) = (self.recorded(), view.into());
        let moved = device::settled(|| recorded.moved(engine, operand, view)).await?;
        recorded.put(moved);
        Ok(())
    }
}

impl Recorded {
    fn moved(&self, engine: &Engine, operand: Operand, view: BufferView<'_>) -> Result<Moved> {
        let places = &self.places;
        if engine.device != places.device {
            return Err(Error::invalid("engine", "one of another device", "the call's own"));
        }
        let at = places.of(operand)?;
        places.check(at, view, engine.capabilities.storage_alignment)?;
        let from = places.places[at].offset;
        let mut changed = Vec::new();
        for (i, dispatch) in self.dispatches.iter().enumerate() {
            if !dispatch.views.iter().any(|(_, of)| *of == operand) {
                continue;
            }
            let mut ranges = dispatch.ranges.clone();
            for (binding, range) in &mut ranges {
                if dispatch.views.contains(&(*binding, operand)) {
                    range.buffer = view.buffer.clone();
                    range.offset = range.offset.wrapping_sub(from).wrapping_add(view.offset);
                }
            }
            let kernel = shared_for(dispatch.kernel.clone(), &ranges, &engine.capabilities)?;
            let pipeline = match kernel == dispatch.kernel {
                true => Arc::clone(&dispatch.pipeline),
                false => engine.pipelines.get(&engine.device, &kernel)?,
            };
            changed.push((i, kernel, pipeline, ranges));
        }
        let device = &engine.device;
        let dispatches = device::scoped(device, "binding a tensor elsewhere", 0, || {
            let bind = |(i, kernel, pipeline, ranges)| -> (usize, Dispatch) {
                (i, self.dispatches[i].moved(device, kernel, pipeline, ranges))
            };
            changed.into_iter().map(bind).collect()
        });
        let dispatches = device::named(dispatches, device, &[(operand.name(), view.buffer)])?;
        Ok(Moved { at, buffer: view.buffer.clone(), offset: view.offset, dispatches })
    }

    fn put(&mut self, moved: Moved) {
        for (i, dispatch) in moved.dispatches {
            self.dispatches[i] = dispatch;
        }
        let place = &mut self.places.places[moved.at];
        (place.buffer, place.offset) = (moved.buffer, moved.offset);
    }
}
