//! Where the tensors of a bound call are, kept so that one can be bound elsewhere.

use crate::engine::apart::{Extent, check_apart};
use crate::engine::tensors::check_range;
use crate::engine::{BufferView, Engine};
use crate::error::{Error, Result};
use crate::problem::Operand;

/// The bytes of a tensor, with its buffer held.
#[derive(Debug)]
pub(super) struct Place {
    name: &'static str,
    pub(super) buffer: wgpu::Buffer,
    pub(super) offset: u64,
    bytes: u64,
    written: bool,
    over: Option<&'static str>,
}

impl Place {
    fn extent(&self) -> Extent<'_> {
        let view = BufferView { buffer: &self.buffer, offset: self.offset };
        let &Self { name, bytes, written, over, .. } = self;
        Extent { name, view, bytes, written, over }
    }
}

/// What a bound call keeps so that its tensors can be bound elsewhere.
#[derive(Debug)]
pub(crate) struct Places {
    pub(super) device: wgpu::Device,
    pub(super) places: Vec<Place>,
}

impl Places {
    pub(crate) fn new(engine: &Engine, extents: &[Extent<'_>]) -> Self {
        let place = |x: &Extent<'_>| Place {
            name: x.name,
            buffer: x.view.buffer.clone(),
            offset: x.view.offset,
            bytes: x.bytes,
            written: x.written,
            over: x.over,
        };
        let places = extents.iter().map(place).collect();
        Self { device: engine.device.clone(), places }
    }

    /// Index of the place of a tensor.
    pub(super) fn of(&self, operand: Operand) -> Result<usize> {
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
    pub(super) fn check(&self, at: usize, view: BufferView<'_>, alignment: u64) -> Result<()> {
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
