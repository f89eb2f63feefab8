//! One tensor of a bound call elsewhere: the bind groups that hold it are made anew, and nothing else.

use std::sync::Arc;

use crate::device::{self, Pipeline};
use crate::engine::apart::{Extent, check_apart, shared_for};
use crate::engine::bound::{Bound, Dispatch, Recorded};
use crate::engine::encode::bind_group;
use crate::engine::range::BoundRange;
use crate::engine::tensors::check_range;
use crate::engine::{BufferView, Engine};
use crate::error::{Error, Result};
use crate::kernel::{Binding, KernelSpec};
use crate::problem::Operand;

/// What a dispatch binds.
#[derive(Debug)]
pub(crate) struct Resources {
    pub(crate) spec: KernelSpec,
    pub(crate) params: BoundRange,
    pub(crate) ranges: Vec<(Binding, BoundRange)>,
    /// Which of the ranges are those of a tensor of the caller's.
    pub(crate) views: Vec<(Binding, Operand)>,
}

/// The bytes of a tensor, with its buffer held.
#[derive(Debug)]
struct Place {
    name: &'static str,
    buffer: wgpu::Buffer,
    offset: u64,
    bytes: u64,
    written: bool,
}

impl Place {
    fn extent(&self) -> Extent<'_> {
        let view = BufferView { buffer: &self.buffer, offset: self.offset };
        Extent { name: self.name, view, bytes: self.bytes, written: self.written }
    }
}

/// What a bound call keeps so that its tensors can be bound elsewhere.
#[derive(Debug)]
pub(crate) struct Places {
    device: wgpu::Device,
    places: Vec<Place>,
    /// Of each dispatch.
    resources: Vec<Resources>,
}

impl Places {
    pub(crate) fn new(engine: &Engine, extents: &[Extent<'_>], resources: Vec<Resources>) -> Self {
        let place = |x: &Extent<'_>| Place {
            name: x.name,
            buffer: x.view.buffer.clone(),
            offset: x.view.offset,
            bytes: x.bytes,
            written: x.written,
        };
        let places = extents.iter().map(place).collect();
        Self { device: engine.device.clone(), places, resources }
    }

    /// Index of the place of a tensor.
    fn of(&self, operand: Operand) -> Result<usize> {
        let found = self.places.iter().position(|place| place.name == operand.name());
        let is_view = !operand.is_table();
        match found {
            Some(place) if is_view => Ok(place),
            _ => {
                let found = if is_view { "no tensor of the call" } else { "a table" };
                let wanted = "q, k, v, o, lse, weights, mask or bias, where the call has it";
                Err(Error::invalid(operand.name(), found, wanted))
            }
        }
    }

    /// Checks the new place of a tensor as binding does. Parameters hold where in its bound range a tensor
    /// starts, so that stays; the width of its elements, which follows from it, does too.
    fn check(&self, at: usize, view: BufferView<'_>, alignment: u64) -> Result<()> {
        let old = &self.places[at];
        let name = old.name;
        let past = old.offset % alignment;
        if view.offset % alignment != past {
            let wanted = match past {
                0 => format!("a multiple of {alignment}, as it was when it was bound"),
                _ => format!("{past} past a multiple of {alignment}, as it was when it was bound"),
            };
            return Err(Error::invalid(format!("{name} offset"), view.offset, wanted));
        }
        check_range(name, view, old.bytes.next_multiple_of(4), 1)?;
        let mut extents: Vec<Extent<'_>> = self.places.iter().map(Place::extent).collect();
        extents[at].view = view;
        check_apart(&extents)
    }
}

impl Resources {
    /// The same with a tensor moved, and the variant for that.
    fn moved(
        &self,
        operand: Operand,
        from: &Place,
        to: BufferView<'_>,
        engine: &Engine,
    ) -> Result<Self> {
        let mut ranges = self.ranges.clone();
        for (binding, range) in &mut ranges {
            if self.views.contains(&(*binding, operand)) {
                range.buffer = to.buffer.clone();
                range.offset = range.offset.wrapping_sub(from.offset).wrapping_add(to.offset);
            }
        }
        let plain = KernelSpec { shared: Vec::new(), ..self.spec.clone() };
        let spec = shared_for(plain, &ranges, &engine.capabilities)?;
        Ok(Self { spec, params: self.params.clone(), ranges, views: self.views.clone() })
    }
}

/// A tensor's new place, with what binds it there.
struct Moved {
    at: usize,
    buffer: wgpu::Buffer,
    offset: u64,
    dispatches: Vec<(usize, Resources, Dispatch)>,
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
        let mut changed = Vec::new();
        for (i, resources) in places.resources.iter().enumerate() {
            if !resources.views.iter().any(|(_, of)| *of == operand) {
                continue;
            }
            let moved = resources.moved(operand, &places.places[at], view, engine)?;
            let pipeline = match moved.spec.shared == resources.spec.shared {
                true => Arc::clone(&self.dispatches[i].pipeline),
                false => engine.pipelines.get(&engine.device, &moved.spec)?,
            };
            changed.push((i, moved, pipeline));
        }
        let device = &engine.device;
        let dispatches = device::scoped(device, "binding a tensor elsewhere", 0, || {
            let bind = |(i, moved, pipeline): (usize, Resources, Arc<Pipeline>)| {
                let group = bind_group(device, &pipeline, &moved.params, &moved.ranges);
                let grid = self.dispatches[i].grid;
                (i, moved, Dispatch { pipeline, group, grid })
            };
            changed.into_iter().map(bind).collect()
        });
        let dispatches = device::named(dispatches, device, &[(operand.name(), view.buffer)])?;
        Ok(Moved { at, buffer: view.buffer.clone(), offset: view.offset, dispatches })
    }

    fn put(&mut self, moved: Moved) {
        for (i, resources, dispatch) in moved.dispatches {
            self.dispatches[i] = dispatch;
            self.places.resources[i] = resources;
        }
        let place = &mut self.places.places[moved.at];
        (place.buffer, place.offset) = (moved.buffer, moved.offset);
    }
}
