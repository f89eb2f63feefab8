//! The buffers of a guarded backward pass, and what is in them afterwards.

use std::ops::Range;

use crate::engine::{
    BackwardTensors, BufferView, Engine, HostTables, Tensors, gapless, input_bytes, laid_out,
    offset_alignment, row_ranges,
};
use crate::error::{Error, Result};
use crate::feature::Operands;
use crate::plan::BackwardPlan;
use crate::problem::{BackwardProblem, Operand};
use crate::reference::{Gradients, Incoming, Inputs, Outputs};
use crate::tensor::DType;
use crate::verify::held::{GUARD, POISON, guarded, surrounded};

/// A tensor in a buffer of its own.
struct Place {
    buffer: wgpu::Buffer,
    offset: u64,
}

impl Place {
    fn view(&self) -> BufferView<'_> {
        BufferView { buffer: &self.buffer, offset: self.offset }
    }
}

/// The buffers of a run: guard words stand around every tensor.
pub(super) struct Held {
    /// The call's tensors, its outputs among them as the forward pass left them.
    forward: Vec<(Operand, Place)>,
    d_o: Place,
    d_lse: Option<Place>,
    d_weights: Option<Place>,
    gradients: Vec<(Operand, Place)>,
    workspace: Place,
    workspace_bytes: u64,
    /// What is written holds this before a run.
    pattern: wgpu::Buffer,
}

impl Held {
    pub(super) fn new(
        engine: &Engine,
        plan: &BackwardPlan,
        inputs: &Inputs<'_>,
        outputs: &Outputs,
        incoming: &Incoming<'_>,
        odd: bool,
    ) -> Result<Self> {
        let problem = plan.problem().problem();
        let shift = |element: u64| GUARD + if odd { element } else { 0 };
        let put = |name: &str, bytes: &[u8], element: u64| -> Result<Place> {
            let offset = shift(element);
            Ok(Place { buffer: surrounded(engine, name, bytes, offset)?, offset })
        };
        let laid = |operand, values: &[f64], dtype: DType| {
            dtype.encode(laid_out(problem, &inputs.operands, operand, values))
        };
        let dtype = problem.attention().dtype;
        let mut forward = Vec::new();
        for (operand, _) in problem.operands() {
            let bytes = match operand {
                Operand::O => Some(laid(operand, &outputs.o, dtype)),
                Operand::Lse => Some(laid(operand, &outputs.lse, DType::F32)),
                Operand::Weights => {
                    let weights = outputs.weights.as_deref().unwrap_or_default();
                    Some(DType::F32.encode(weights.iter().copied()))
                }
                _ => input_bytes(problem, inputs, operand),
            };
            if let Some(bytes) = bytes {
                let place = put(operand.name(), &bytes, offset_alignment(problem, operand))?;
                forward.push((operand, place));
            }
        }
        let asked = plan.problem().backward();
        let o = laid(Operand::O, incoming.o, dtype);
        let lse = asked.from_lse.then(|| laid(Operand::Lse, incoming.lse, DType::F32));
        let weights =
            asked.from_weights.then(|| DType::F32.encode(incoming.weights.iter().copied()));
        let optional = |name, bytes: Option<Vec<u8>>| bytes.map(|x| put(name, &x, 4)).transpose();
        let (d_lse, d_weights) = (optional("d_lse", lse)?, optional("d_weights", weights)?);
        let d_o = put("d_o", &o, dtype.bytes())?;

        let room = |bytes: u64| (bytes + GUARD).next_multiple_of(16);
        let workspace_bytes = plan.workspace_bytes();
        let workspace = guarded(engine, "workspace", room(GUARD + workspace_bytes))?;
        let workspace = Place { buffer: workspace, offset: GUARD };
        let mut largest = workspace.buffer.size();
        let mut gradients = Vec::new();
        for &operand in plan.problem().wanted() {
            let element = plan.problem().gradient_bits(operand) / 8;
            let bytes = problem.elements(operand).unwrap_or(0) * element;
            let offset = shift(element);
            let buffer = guarded(engine, operand.gradient_name(), room(offset + bytes))?;
            largest = largest.max(buffer.size());
            gradients.push((operand, Place { buffer, offset }));
        }
        let pattern = surrounded(engine, "poison", &[], largest)?;
        Ok(Self { forward, d_o, d_lse, d_weights, gradients, workspace, workspace_bytes, pattern })
    }

    /// Every buffer that is written: those of gradients in their order, then scratch.
    pub(super) fn written(&self) -> impl Iterator<Item = &wgpu::Buffer> {
        let gradients = self.gradients.iter().map(|(_, place)| &place.buffer);
        gradients.chain([&self.workspace.buffer])
    }

    /// Fills everything that is written with the pattern.
    pub(super) fn poison(&self, encoder: &mut wgpu::CommandEncoder) {
        for buffer in self.written() {
            encoder.copy_buffer_to_buffer(&self.pattern, 0, buffer, 0, buffer.size());
        }
    }

    /// Sets gradients, and nothing between or beside them, to 0.
    pub(super) fn clear(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        backward: &BackwardProblem,
        operands: &Operands<'_>,
    ) {
        for (operand, place) in &self.gradients {
            let size = backward.gradient_bits(*operand) / 8;
            for own in row_ranges(backward.problem(), operands, *operand) {
                let (start, n) = (own.start as u64 * size, own.len() as u64 * size);
                encoder.clear_buffer(&place.buffer, place.offset + start, Some(n));
            }
        }
    }

    /// Every view and table.
    pub(super) fn tensors<'a>(&'a self, tables: &'a HostTables<'_>) -> Result<BackwardTensors<'a>> {
        let view = |operand| {
            let found = self.forward.iter().find(|(of, _)| *of == operand);
            let missing = || Error::internal("uploading", format!("no {operand}"));
            found.map(|(_, place)| place.view()).ok_or_else(missing)
        };
        let [q, k, v, o] = [Operand::Q, Operand::K, Operand::V, Operand::O].map(view);
        let mut forward = Tensors::new(q?, k?, v?, o?);
        for (operand, place) in &self.forward {
            if let Some(held) = forward.view_mut(*operand) {
                *held = Some(place.view());
            }
        }
        forward.workspace = Some(self.workspace.view());
        tables.set(&mut forward);
        let mut tensors = BackwardTensors::new(forward, self.d_o.view());
        tensors.d_lse = self.d_lse.as_ref().map(Place::view);
        tensors.d_weights = self.d_weights.as_ref().map(Place::view);
        for (operand, place) in &self.gradients {
            tensors = tensors.with(*operand, place.view());
        }
        Ok(tensors)
    }

    /// Decodes gradients and finds the first byte written outside them or outside scratch.
    pub(super) fn collect(
        &self,
        backward: &BackwardProblem,
        operands: &Operands<'_>,
        buffers: &[Vec<u8>],
    ) -> (Gradients, Option<String>) {
        let problem = backward.problem();
        let mut gradients = Gradients::default();
        let mut stray = None;
        for ((operand, place), buffer) in self.gradients.iter().zip(buffers) {
            let offset = place.offset as usize;
            gradients.insert(*operand, gapless(backward, operands, *operand, &buffer[offset..]));
            let size = backward.gradient_bits(*operand) as usize / 8;
            let own = row_ranges(problem, operands, *operand);
            let own = own.into_iter().map(|x| offset + x.start * size..offset + x.end * size);
            let wrong = outside(buffer, own);
            stray = stray.or(wrong.map(|i| format!("gradient of {operand} at byte {i}")));
        }
        let own = self.workspace.offset as usize;
        if let Some(buffer) = buffers.last() {
            let wrong = outside(buffer, std::iter::once(own..own + self.workspace_bytes as usize));
            stray = stray.or(wrong.map(|i| format!("scratch at byte {i}")));
        }
        (gradients, stray)
    }

    /// Whether two runs left the same bits in every gradient.
    pub(super) fn same(&self, first: &[Vec<u8>], second: &[Vec<u8>]) -> bool {
        let n = self.gradients.len();
        first[..n] == second[..n]
    }
}

/// The first byte outside these ranges that is not the pattern's.
fn outside(buffer: &[u8], own: impl Iterator<Item = Range<usize>>) -> Option<usize> {
    let mut free = vec![true; buffer.len()];
    own.for_each(|range| free[range].fill(false));
    let wrong = |i: &usize| free[*i] && buffer[*i] != POISON[i % 4];
    (0..buffer.len()).find(wrong)
}
