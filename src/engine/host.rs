//! Attention on host slices: uploads, runs, reads back.

use crate::device::{self, Readback, Wait};
use crate::engine::{Bound, BufferView, Engine, HostTables, Recorded, Tensors, stored};
use crate::error::{Error, Result};
use crate::feature::Operands;
use crate::feature::operand::Values;
use crate::plan::Plan;
use crate::problem::{Operand, Problem};
use crate::reference::{Inputs, Outputs};
use crate::tensor::DType;

/// The outputs of a call on their way to the host.
type Pending = Vec<(Operand, Readback)>;

impl Engine {
    /// Runs a call on host data and waits, blocking the thread. Not in a browser, where nothing may block.
    ///
    /// Inputs are rounded to the problem's storage type; q, k and v lie as the problem's layouts
    /// say. Outputs are without gaps: o `[batch, heads_q, seq_q, dim_v]`, lse
    /// `[batch, heads_q, seq_q]` (empty unless the problem asks for it), weights
    /// `[batch, heads_q, seq_q, seq_kv]`.
    ///
    /// # Errors
    /// Invalid argument naming the tensor, out of memory, device lost, internal.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn run_host(&self, plan: &Plan, inputs: &Inputs<'_>) -> Result<Outputs> {
        pollster::block_on(self.run_host_in(plan, inputs, Wait::Blocking))
    }

    /// [`run_host`](Self::run_host) without blocking the thread.
    ///
    /// # Errors
    /// As [`run_host`](Self::run_host).
    pub async fn run_host_async(&self, plan: &Plan, inputs: &Inputs<'_>) -> Result<Outputs> {
        self.run_host_in(plan, inputs, Wait::Awaiting).await
    }

    pub(super) async fn run_host_in(
        &self,
        plan: &Plan,
        inputs: &Inputs<'_>,
        wait: Wait,
    ) -> Result<Outputs> {
        let pending = device::settled(|| self.start_host(plan, inputs)).await?;
        let mut read = Vec::new();
        for (operand, back) in pending {
            read.push((operand, back.get(wait).await?));
        }
        let of = |operand| read.iter().find(|(o, _)| *o == operand).map(|(_, bytes)| &bytes[..]);
        let o = of(Operand::O).unwrap_or_default();
        let (lse, weights) = (of(Operand::Lse), of(Operand::Weights));
        Ok(collect(plan.problem(), &inputs.operands, o, lse, weights))
    }

    fn start_host(&self, plan: &Plan, inputs: &Inputs<'_>) -> Result<Pending> {
        self.check_queue()?;
        let uploaded = Uploaded::new(self, plan, inputs)?;
        let bound = uploaded.bind(self, plan, inputs)?;
        let mut encoder = self.device.create_command_encoder(&Default::default());
        bound.encode(&mut encoder);
        let outputs = uploaded.0.iter().filter(|(operand, _)| operand.is_output());
        let read = |(operand, buffer): &(Operand, wgpu::Buffer)| {
            let back = Readback::record(&self.device, &mut encoder, buffer, 0, buffer.size())?;
            Ok((*operand, back))
        };
        let pending = outputs.map(read).collect::<Result<_>>()?;
        device::scoped(&self.device, "submitting attention", 0, || {
            self.queue.submit([encoder.finish()])
        })?;
        Ok(pending)
    }
}

/// The tensors of a call that are views, in buffers of their own.
pub(crate) struct Uploaded(Vec<(Operand, wgpu::Buffer)>);

impl Uploaded {
    pub(crate) fn new(engine: &Engine, plan: &Plan, inputs: &Inputs<'_>) -> Result<Self> {
        let problem = plan.problem();
        inputs.validate(problem)?;
        // Measurements copy inputs, the host reads outputs.
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
        let views = problem.operands().into_iter().filter(|(operand, _)| !operand.is_table());
        let upload = |(operand, n): (Operand, u64)| {
            let name = operand.name();
            let buffer = match input_bytes(problem, inputs, operand) {
                Some(bytes) => device::upload(&engine.device, name, &bytes, usage)?,
                None => {
                    let bytes = (n * problem.element_bits(operand)).div_ceil(8);
                    let bytes = bytes.next_multiple_of(4);
                    device::create_buffer(&engine.device, name, bytes, usage)?
                }
            };
            Ok((operand, buffer))
        };
        views.map(upload).collect::<Result<_>>().map(Self)
    }

    /// The same contents in other buffers, copied on the device.
    #[cfg(feature = "bench")]
    pub(crate) fn copied(&self, engine: &Engine) -> Result<Self> {
        let mut encoder = engine.device.create_command_encoder(&Default::default());
        let copy = |(operand, from): &(Operand, wgpu::Buffer)| {
            let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
            let to = device::create_buffer(&engine.device, "a copy", from.size(), usage)?;
            encoder.copy_buffer_to_buffer(from, 0, &to, 0, from.size());
            Ok((*operand, to))
        };
        let copies = self.0.iter().map(copy).collect::<Result<_>>()?;
        engine.queue.submit([encoder.finish()]);
        Ok(Self(copies))
    }

    pub(crate) fn bind(&self, engine: &Engine, plan: &Plan, inputs: &Inputs<'_>) -> Result<Bound> {
        self.record(engine, plan, inputs, None).map(Bound)
    }

    /// The dispatches of a call on these tensors, over scratch of the caller's where it is given.
    pub(super) fn record(
        &self,
        engine: &Engine,
        plan: &Plan,
        inputs: &Inputs<'_>,
        workspace: Option<BufferView<'_>>,
    ) -> Result<Recorded> {
        let tables = HostTables::new(plan.problem(), &inputs.operands);
        let [q, k, v, o] = [Operand::Q, Operand::K, Operand::V, Operand::O].map(|operand| {
            let held = self.0.iter().find(|(of, _)| *of == operand);
            held.map(|(_, buffer)| buffer)
                .ok_or_else(|| Error::internal("uploading", format!("no {operand}")))
        });
        let mut tensors = Tensors::new(q?, k?, v?, o?);
        for (operand, buffer) in &self.0 {
            if let Some(place) = tensors.view_mut(*operand) {
                *place = Some(buffer.into());
            }
        }
        tensors.workspace = workspace;
        tables.set(&mut tensors);
        Recorded::new(engine, plan, &tensors)
    }
}

/// The contents of an input that is a view; `None` for outputs and tables.
pub(crate) fn input_bytes(
    problem: &Problem,
    inputs: &Inputs<'_>,
    operand: Operand,
) -> Option<Vec<u8>> {
    if operand.is_table() {
        return None;
    }
    if let Some(rows) = operand.rows() {
        return Some(stored(problem, operand, inputs.rows(rows)?));
    }
    match inputs.operands.values(operand)? {
        Values::Flags(x) if problem.element_bits(operand) == 1 => Some(packed_bits(x)),
        Values::Flags(x) => Some(x.iter().map(|&keep| keep.into()).collect()),
        Values::Floats(x) => Some(float_type(problem, operand).encode(x.iter().copied())),
        Values::Counts(x) => Some(bytemuck::cast_slice(x).to_vec()),
        Values::Integers(x) => Some(bytemuck::cast_slice(x).to_vec()),
    }
}

/// The type of an operand of real numbers that is no rows.
fn float_type(problem: &Problem, operand: Operand) -> DType {
    if operand == Operand::Bias { problem.attention().bias_dtype } else { DType::F32 }
}

/// Bit i % 8 of byte i / 8 for flag i.
fn packed_bits(flags: &[bool]) -> Vec<u8> {
    let byte = |eight: &[bool]| eight.iter().rev().fold(0, |byte, on| byte << 1 | u8::from(*on));
    flags.chunks(8).map(byte).collect()
}

/// Decodes outputs into gapless ones; rows that packed tensors do not hold are 0 and −∞.
fn collect(
    problem: &Problem,
    operands: &Operands<'_>,
    o: &[u8],
    lse: Option<&[u8]>,
    weights: Option<&[u8]>,
) -> Outputs {
    let a = problem.attention();
    let dim_v = a.shape.dim_v as usize;
    let stored = a.dtype.decode(o);
    let stored_lse = lse.map(|bytes| DType::F32.decode(bytes));
    let mut outputs = Outputs {
        o: Vec::with_capacity(a.shape.elements()[3] as usize),
        lse: Vec::new(),
        // Buffers are rounded up.
        weights: weights.map(|bytes| {
            let mut values = DType::F32.decode(bytes);
            values.truncate((a.shape.rows() * u64::from(a.shape.seq_kv)) as usize);
            values
        }),
    };
    for [batch, head, row] in a.shape.row_positions() {
        let at = [batch, head, row];
        let held = problem.stores(batch, row, operands);
        let start = problem.index(Operand::O, at, operands) as usize;
        match stored.get(start..start + dim_v) {
            Some(values) if held => outputs.o.extend_from_slice(values),
            _ => outputs.o.resize(outputs.o.len() + dim_v, 0.0),
        }
        if let Some(lse) = &stored_lse {
            let index = problem.lse_index(at, operands) as usize;
            let value = lse.get(index).copied().filter(|_| held);
            outputs.lse.push(value.unwrap_or(f64::NEG_INFINITY));
        }
    }
    outputs
}
