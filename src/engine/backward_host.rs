//! Gradients on host slices: uploads, runs, reads back.

use crate::device::{self, Readback, Wait};
use crate::engine::host::input_bytes;
use crate::engine::{BackwardTensors, BoundBackward, BufferView, Engine, HostTables, Tensors};
use crate::error::{Error, Result};
use crate::feature::Operands;
use crate::feature::operand::Rows;
use crate::plan::{BackwardPlan, Policy};
use crate::problem::{Attention, BackwardProblem, Operand, Problem};
use crate::reference::{Gradients, Incoming, Inputs, Outputs};
use crate::tensor::DType;

impl Engine {
    /// Computes gradients from host data and waits, blocking the thread. Not in a browser, where nothing may block.
    ///
    /// Where the plan [reads](BackwardPlan::reads_outputs) what the forward pass writes, that pass is run first. Inputs
    /// and the gradient of o are rounded to the problem's storage type; q, k and v lie as the problem's layouts
    /// say, what comes in and the gradients are without gaps as those of
    /// [`BackwardProblem::reference`](crate::BackwardProblem::reference).
    ///
    /// # Errors
    /// Invalid argument naming the tensor, out of memory, device lost, internal; where a forward pass is run, those of
    /// planning it under the default policy.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn run_backward_host(
        &self,
        plan: &BackwardPlan,
        inputs: &Inputs<'_>,
        incoming: &Incoming<'_>,
    ) -> Result<Gradients> {
        pollster::block_on(self.run_both_in(plan, inputs, incoming, Wait::Blocking))
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
        self.run_both_in(plan, inputs, incoming, Wait::Awaiting).await
    }

    async fn run_both_in(
        &self,
        plan: &BackwardPlan,
        inputs: &Inputs<'_>,
        incoming: &Incoming<'_>,
        wait: Wait,
    ) -> Result<Gradients> {
        let outputs = self.outputs_for(plan, inputs, wait).await?;
        self.run_backward_host_in(plan, inputs, incoming, outputs.as_ref(), 1, wait).await
    }

    /// What the forward pass writes, where a plan reads it: on the path of the gradients where that serves, so that
    /// both sum scores in one order. Of sharp weights little but that rounding is left in o less the values they chose.
    pub(crate) async fn outputs_for(
        &self,
        plan: &BackwardPlan,
        inputs: &Inputs<'_>,
        wait: Wait,
    ) -> Result<Option<Outputs>> {
        if !plan.reads_outputs() {
            return Ok(None);
        }
        let attention = plan.problem().problem().attention().clone();
        let attention = &Attention { weights: None, ..attention };
        let alike = Policy { path: plan.path(), ..Policy::default() };
        let forward = match self.plan_in(attention, &alike, wait).await {
            Err(error) if error.is_unsupported() => {
                self.plan_in(attention, &Policy::default(), wait).await?
            }
            plan => plan?,
        };
        self.run_host_in(&forward, inputs, wait).await.map(Some)
    }

    /// Gradients from what the forward pass wrote, computed so many times into the same buffers, which are 0 first.
    pub(super) async fn run_backward_host_in(
        &self,
        plan: &BackwardPlan,
        inputs: &Inputs<'_>,
        incoming: &Incoming<'_>,
        outputs: Option<&Outputs>,
        times: u32,
        wait: Wait,
    ) -> Result<Gradients> {
        let start = || self.start_backward(plan, inputs, incoming, outputs, times);
        let pending = device::settled(start).await?;
        let problem = plan.problem();
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
        outputs: Option<&Outputs>,
        times: u32,
    ) -> Result<Vec<(Operand, Readback)>> {
        self.check_queue()?;
        let uploaded = UploadedBackward::new(self, plan, inputs, incoming, outputs)?;
        let bound = uploaded.bind(self, plan, inputs, None)?;
        let mut encoder = self.device.create_command_encoder(&Default::default());
        (0..times).for_each(|_| bound.encode(&mut encoder));
        let mut pending = Vec::new();
        for (operand, buffer) in &uploaded.gradients {
            let back = Readback::record(&self.device, &mut encoder, buffer, 0, buffer.size())?;
            pending.push((*operand, back));
        }
        device::scoped(&self.device, "submitting gradients", 0, || {
            self.queue.submit([encoder.finish()])
        })?;
        Ok(pending)
    }
}

/// The tensors of a backward pass in buffers of their own. What the forward pass writes is empty unless it is given.
pub(crate) struct UploadedBackward {
    forward: Vec<(Operand, wgpu::Buffer)>,
    d_o: wgpu::Buffer,
    d_lse: Option<wgpu::Buffer>,
    d_weights: Option<wgpu::Buffer>,
    pub(crate) gradients: Vec<(Operand, wgpu::Buffer)>,
}

impl UploadedBackward {
    pub(crate) fn new(
        engine: &Engine,
        plan: &BackwardPlan,
        inputs: &Inputs<'_>,
        incoming: &Incoming<'_>,
        outputs: Option<&Outputs>,
    ) -> Result<Self> {
        let problem = plan.problem().problem();
        inputs.validate(problem)?;
        incoming.validate(plan.problem())?;
        let device = &engine.device;
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
        let empty = |name: &str, operand: Operand| {
            let bits = plan.problem().gradient_bits(operand);
            let bits = problem.elements(operand).unwrap_or(0) * bits;
            let bytes = bits.div_ceil(8).next_multiple_of(4).max(4);
            device::create_buffer(device, name, bytes, usage)
        };
        let written = |operand: Operand| {
            let (values, dtype) = match operand {
                Operand::O => (&outputs?.o, problem.attention().dtype),
                Operand::Lse => (&outputs?.lse, DType::F32),
                _ => return None,
            };
            Some(dtype.encode(laid_out(problem, &inputs.operands, operand, values)))
        };
        let mut forward = Vec::new();
        for (operand, _) in problem.operands().into_iter().filter(|(x, _)| !x.is_table()) {
            let bytes = written(operand).or_else(|| input_bytes(problem, inputs, operand));
            let buffer = match bytes {
                Some(bytes) => device::upload(device, operand.name(), &bytes, usage)?,
                None => empty(operand.name(), operand)?,
            };
            forward.push((operand, buffer));
        }
        let encoded = |name: &str, values: &[f64], dtype: DType| {
            device::upload(device, name, &dtype.encode(values.iter().copied()), usage)
        };
        let laid = |operand, values| laid_out(problem, &inputs.operands, operand, values);
        let asked = plan.problem().backward();
        let d_o = encoded("d_o", &laid(Operand::O, incoming.o), problem.attention().dtype)?;
        let lse = asked.from_lse.then(|| laid(Operand::Lse, incoming.lse));
        let d_lse = lse.map(|values| encoded("d_lse", &values, DType::F32)).transpose()?;
        let weights = asked.from_weights.then_some(incoming.weights);
        let d_weights = weights.map(|x| encoded("d_weights", x, DType::F32)).transpose()?;
        let gradient = |&operand: &Operand| Ok((operand, empty("a gradient", operand)?));
        let gradients = plan.problem().wanted().iter().map(gradient).collect::<Result<_>>()?;
        Ok(Self { forward, d_o, d_lse, d_weights, gradients })
    }

    /// The same contents in other buffers, copied on the device.
    #[cfg(all(feature = "bench", not(target_arch = "wasm32")))]
    pub(crate) fn copied(&self, engine: &Engine) -> Result<Self> {
        let mut encoder = engine.device.create_command_encoder(&Default::default());
        let mut copy = |from: &wgpu::Buffer| {
            let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
            let to = device::create_buffer(&engine.device, "a copy", from.size(), usage)?;
            encoder.copy_buffer_to_buffer(from, 0, &to, 0, from.size());
            Ok(to)
        };
        let mut all = |list: &[(Operand, wgpu::Buffer)]| -> Result<Vec<_>> {
            list.iter().map(|(operand, from)| Ok((*operand, copy(from)?))).collect()
        };
        let (forward, gradients) = (all(&self.forward)?, all(&self.gradients)?);
        let d_o = copy(&self.d_o)?;
        let d_lse = self.d_lse.as_ref().map(&mut copy).transpose()?;
        let d_weights = self.d_weights.as_ref().map(&mut copy).transpose()?;
        engine.queue.submit([encoder.finish()]);
        Ok(Self { forward, d_o, d_lse, d_weights, gradients })
    }

    /// A backward plan on these tensors, over scratch of the caller's where it is given.
    pub(crate) fn bind(
        &self,
        engine: &Engine,
        plan: &BackwardPlan,
        inputs: &Inputs<'_>,
        workspace: Option<BufferView<'_>>,
    ) -> Result<BoundBackward> {
        let [q, k, v, o] = [Operand::Q, Operand::K, Operand::V, Operand::O].map(|operand| {
            let held = self.forward.iter().find(|(of, _)| *of == operand);
            held.map(|(_, buffer)| buffer)
                .ok_or_else(|| Error::internal("uploading", format!("no {operand}")))
        });
        let mut forward = Tensors::new(q?, k?, v?, o?);
        for (operand, buffer) in &self.forward {
            if let Some(place) = forward.view_mut(*operand) {
                *place = Some(buffer.into());
            }
        }
        let tables = HostTables::new(plan.problem().problem(), &inputs.operands);
        tables.set(&mut forward);
        forward.workspace = workspace;
        let mut tensors = BackwardTensors::new(forward, &self.d_o);
        tensors.d_lse = self.d_lse.as_ref().map(BufferView::from);
        tensors.d_weights = self.d_weights.as_ref().map(BufferView::from);
        for (operand, buffer) in &self.gradients {
            tensors = tensors.with(*operand, buffer);
        }
        engine.bind_backward(plan, &tensors)
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
    let (rows, keys) = problem.held(at[0], operands);
    let held = if matches!(operand.rows(), Some(Rows::K | Rows::V)) { keys } else { rows };
    if at[2] >= held {
        return None;
    }
    let index = match operand {
        Operand::Lse => problem.lse_index(at, operands),
        _ => problem.index(operand, at, operands),
    };
    Some(index as usize)
}

/// The elements of a tensor that a gradient has: its rows where it has rows, without the gaps between them.
#[cfg(feature = "verify")]
pub(crate) fn row_ranges(
    problem: &Problem,
    operands: &Operands<'_>,
    operand: Operand,
) -> Vec<std::ops::Range<usize>> {
    if operand.rows().is_none() {
        return std::iter::once(0..problem.elements(operand).unwrap_or(0) as usize).collect();
    }
    let (rows, dim) = rows_of(problem, operand);
    let held = rows.into_iter().filter_map(|at| place(problem, operands, operand, at));
    held.map(|start| start..start + dim).collect()
}

/// Gapless values where the tensor has its rows; empty stays empty.
pub(crate) fn laid_out(
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

/// A gradient without gaps, as it was read from its first byte on; 0 where packed tensors hold no row.
pub(crate) fn gapless(
    backward: &BackwardProblem,
    operands: &Operands<'_>,
    operand: Operand,
    bytes: &[u8],
) -> Vec<f64> {
    let problem = backward.problem();
    let n = problem.elements(operand).unwrap_or(0) as usize;
    if operand.rows().is_none() {
        let mut values = DType::F32.decode(bytes);
        values.truncate(n);
        return values;
    }
    let laid = backward.gradient_dtype(operand).decode(bytes);
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
