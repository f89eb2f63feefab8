//! Gradients on host slices: uploads, runs, reads back.

use crate::device::{self, Readback, Wait};
use crate::engine::host::input_bytes;
use crate::engine::{BackwardTensors, BufferView, Engine, HostTables, Tensors};
use crate::error::{Error, Result};
use crate::feature::Operands;
use crate::feature::operand::Rows;
use crate::plan::BackwardPlan;
use crate::problem::{Operand, Problem};
use crate::reference::{Gradients, Incoming, Inputs};
use crate::tensor::DType;

impl Engine {
    /// Computes gradients from host data and waits, blocking the thread. Not in a browser, where nothing may block.
    ///
    /// Inputs and the gradient of o are rounded to the problem's storage type; q, k and v lie as the problem's layouts
    /// say, what comes in and the gradients are without gaps as those of
    /// [`reference::backward`](crate::reference::backward()).
    ///
    /// # Errors
    /// Invalid argument naming the tensor, out of memory, device lost, internal.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn run_backward_host(
        &self,
        plan: &BackwardPlan,
        inputs: &Inputs<'_>,
        incoming: &Incoming<'_>,
    ) -> Result<Gradients> {
        pollster::block_on(self.run_backward_host_in(plan, inputs, incoming, Wait::Blocking))
    }

    /// `run_backward_host` without blocking the thread.
    ///
    /// # Errors
    /// As `run_backward_host`.
    pub async fn run_backward_host_async(
        &self,
        plan: &BackwardPlan,
        inputs: &Inputs<'_>,
        incoming: &Incoming<'_>,
    ) -> Result<Gradients> {
        self.run_backward_host_in(plan, inputs, incoming, Wait::Awaiting).await
    }

    async fn run_backward_host_in(
        &self,
        plan: &BackwardPlan,
        inputs: &Inputs<'_>,
        incoming: &Incoming<'_>,
        wait: Wait,
    ) -> Result<Gradients> {
        let pending = device::settled(|| self.start_backward(plan, inputs, incoming)).await?;
        let problem = plan.problem().problem();
        let mut gradients = Gradients::default();
        for (operand, back) in pending {
            let bytes = back.get(wait).await?;
            gradients.insert(operand, gapless(problem, &inputs.operands, operand, &bytes));
        }
        Ok(gradients)
    }

    fn start_backward(
        &self,
        plan: &BackwardPlan,
        inputs: &Inputs<'_>,
        incoming: &Incoming<'_>,
    ) -> Result<Vec<(Operand, Readback)>> {
        let problem = plan.problem().problem();
        inputs.validate(problem)?;
        incoming.validate(plan.problem())?;
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
        let empty = |name: &str, operand: Operand| {
            let bits = problem.elements(operand).unwrap_or(0) * problem.element_bits(operand);
            let bytes = bits.div_ceil(8).next_multiple_of(4).max(4);
            device::create_buffer(&self.device, name, bytes, usage)
        };
        let mut buffers: Vec<(Operand, wgpu::Buffer)> = Vec::new();
        for (operand, _) in problem.operands().into_iter().filter(|(x, _)| !x.is_table()) {
            let buffer = match input_bytes(problem, inputs, operand) {
                Some(bytes) => device::upload(&self.device, operand.name(), &bytes, usage)?,
                None => empty(operand.name(), operand)?,
            };
            buffers.push((operand, buffer));
        }
        let held = |operand| {
            let held = buffers.iter().find(|(of, _)| *of == operand).map(|(_, buffer)| buffer);
            held.ok_or_else(|| Error::internal("uploading", format!("no {operand}")))
        };
        let mut forward = Tensors::new(
            held(Operand::Q)?,
            held(Operand::K)?,
            held(Operand::V)?,
            held(Operand::O)?,
        );
        for (operand, buffer) in &buffers {
            if let Some(place) = forward.view_mut(*operand) {
                *place = Some(buffer.into());
            }
        }
        let tables = HostTables::new(problem, &inputs.operands);
        tables.set(&mut forward);
        let d_o = laid_out(problem, &inputs.operands, Operand::O, incoming.o);
        let d_o = problem.attention().dtype.encode(d_o);
        let d_o = device::upload(&self.device, "d_o", &d_o, usage)?;
        let d_lse = laid_out(problem, &inputs.operands, Operand::Lse, incoming.lse);
        let floats = |name: &str, values: &[f64]| {
            let bytes = DType::F32.encode(values.iter().copied());
            device::upload(&self.device, name, &bytes, usage)
        };
        let d_lse = floats("d_lse", &d_lse)?;
        let d_weights = floats("d_weights", incoming.weights)?;
        let mut tensors = BackwardTensors::new(forward, &d_o);
        let asked = plan.problem().backward();
        tensors.d_lse = asked.from_lse.then(|| BufferView::from(&d_lse));
        tensors.d_weights = asked.from_weights.then(|| BufferView::from(&d_weights));
        let mut outputs = Vec::new();
        for &operand in plan.problem().wanted() {
            outputs.push((operand, empty("a gradient", operand)?));
        }
        for (operand, buffer) in &outputs {
            tensors = tensors.with(*operand, buffer);
        }
        let bound = self.bind_backward(plan, &tensors)?;
        let mut encoder = self.device.create_command_encoder(&Default::default());
        bound.encode(&mut encoder);
        let mut pending = Vec::new();
        for (operand, buffer) in &outputs {
            let back = Readback::record(&self.device, &mut encoder, buffer, 0, buffer.size())?;
            pending.push((*operand, back));
        }
        device::scoped(&self.device, "submitting gradients", 0, || {
            self.queue.submit([encoder.finish()])
        })?;
        Ok(pending)
    }
}

/// (sequence, head, row) of every row of an operand that has rows, in order, and how long these are.
fn rows_of(problem: &Problem, operand: Operand) -> (Vec<[u32; 3]>, usize) {
    let s = problem.attention().shape;
    let of_queries = matches!(operand, Operand::Lse);
    let like = if of_queries { Operand::O } else { operand };
    let (heads, seq) = (problem.heads(like), problem.seq(like));
    let dim = if of_queries { 1 } else { problem.dim(operand) };
    let places = (0..s.batch)
        .flat_map(|b| (0..heads).flat_map(move |h| (0..seq).map(move |row| [b, h, row])));
    (places.collect(), dim as usize)
}

/// Where a row lies; `None` where packed tensors do not hold it.
fn place(
    problem: &Problem,
    operands: &Operands<'_>,
    operand: Operand,
    at: [u32; 3],
) -> Option<usize> {
    let (q_len, kv_len) = problem.lengths(at[0], operands);
    let len = if matches!(operand.rows(), Some(Rows::K | Rows::V)) { kv_len } else { q_len };
    if problem.attention().packed.is_some() && at[2] >= len {
        return None;
    }
    let index = match operand {
        Operand::Lse => problem.lse_index(at, operands),
        _ => problem.index(operand, at, operands),
    };
    Some(index as usize)
}

/// Gapless values where the tensor has its rows; empty stays empty.
fn laid_out(
    problem: &Problem,
    operands: &Operands<'_>,
    operand: Operand,
    values: &[f64],
) -> Vec<f64> {
    if values.is_empty() {
        return Vec::new();
    }
    let (rows, dim) = rows_of(problem, operand);
    let mut laid = vec![0.0; problem.elements(operand).unwrap_or(0) as usize];
    for (at, row) in rows.into_iter().zip(values.chunks(dim)) {
        let start = place(problem, operands, operand, at);
        let to = start.and_then(|start| laid.get_mut(start..start + dim));
        to.into_iter().for_each(|to| to.copy_from_slice(row));
    }
    laid
}

/// A gradient without gaps, as it was read; 0 where packed tensors hold no row.
fn gapless(problem: &Problem, operands: &Operands<'_>, operand: Operand, bytes: &[u8]) -> Vec<f64> {
    let n = problem.elements(operand).unwrap_or(0) as usize;
    if operand.rows().is_none() {
        let mut values = DType::F32.decode(bytes);
        values.truncate(n);
        return values;
    }
    let dtype = problem.storage(operand).dtype().unwrap_or(DType::F32);
    let laid = dtype.decode(bytes);
    let (rows, dim) = rows_of(problem, operand);
    let mut values = Vec::with_capacity(rows.len() * dim);
    for at in rows {
        let start = place(problem, operands, operand, at);
        match start.and_then(|start| laid.get(start..start + dim)) {
            Some(row) => values.extend_from_slice(row),
            None => values.resize(values.len() + dim, 0.0),
        }
    }
    values
}
