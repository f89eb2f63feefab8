//! Attention on host slices: uploads, runs, reads back.

use crate::device::{self, Readback, Wait};
use crate::engine::{Bound, BufferView, Engine, HostTables, Recorded, Tensors, stored};
use crate::error::Result;
use crate::feature::Operands;
use crate::plan::Plan;
use crate::problem::{Operand, Problem};
use crate::reference::{Inputs, Outputs};
use crate::tensor::DType;

/// The outputs of a call on their way to the host.
struct Pending {
    o: Readback,
    lse: Option<Readback>,
    weights: Option<Readback>,
}

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
        let o = pending.o.get(wait).await?;
        let lse = match pending.lse {
            Some(lse) => Some(lse.get(wait).await?),
            None => None,
        };
        let weights = match pending.weights {
            Some(weights) => Some(weights.get(wait).await?),
            None => None,
        };
        Ok(collect(plan.problem(), &inputs.operands, &o, lse.as_deref(), weights.as_deref()))
    }

    fn start_host(&self, plan: &Plan, inputs: &Inputs<'_>) -> Result<Pending> {
        self.check_queue()?;
        let uploaded = Uploaded::new(self, plan, inputs)?;
        let bound = uploaded.bind(self, plan, inputs)?;
        let mut encoder = self.device.create_command_encoder(&Default::default());
        bound.encode(&mut encoder);
        let mut read = |buffer: &wgpu::Buffer| {
            Readback::record(&self.device, &mut encoder, buffer, 0, buffer.size())
        };
        let pending = Pending {
            o: read(&uploaded.o)?,
            lse: uploaded.lse.as_ref().map(&mut read).transpose()?,
            weights: uploaded.weights.as_ref().map(&mut read).transpose()?,
        };
        device::scoped(&self.device, "submitting attention", 0, || {
            self.queue.submit([encoder.finish()])
        })?;
        Ok(pending)
    }
}

/// The tensors of a call in buffers of their own.
pub(crate) struct Uploaded {
    q: wgpu::Buffer,
    k: wgpu::Buffer,
    v: wgpu::Buffer,
    o: wgpu::Buffer,
    lse: Option<wgpu::Buffer>,
    weights: Option<wgpu::Buffer>,
    mask: Option<wgpu::Buffer>,
    bias: Option<wgpu::Buffer>,
}

impl Uploaded {
    pub(crate) fn new(engine: &Engine, plan: &Plan, inputs: &Inputs<'_>) -> Result<Self> {
        let problem = plan.problem();
        inputs.validate(problem)?;
        let a = problem.attention();
        let operands = problem.operands();
        let size =
            |operand: Operand| operands.iter().find(|(o, _)| *o == operand).map_or(0, |(_, n)| *n);
        let input = |operand: Operand, bytes: &[u8]| {
            // Measurements copy them.
            let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
            device::upload(&engine.device, operand.name(), bytes, usage)
        };
        let rows = |operand, values: &[f64]| input(operand, &stored(problem, operand, values));
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
        let output = |operand: Operand, element: u64| {
            let bytes = (size(operand) * element).next_multiple_of(4);
            device::create_buffer(&engine.device, operand.name(), bytes, usage)
        };
        let given = &inputs.operands;
        let mask: Vec<u8> = given.mask.iter().map(|&keep| keep.into()).collect();
        let bias = DType::F32.encode(given.bias.iter().copied());
        Ok(Self {
            q: rows(Operand::Q, inputs.q)?,
            k: rows(Operand::K, inputs.k)?,
            v: rows(Operand::V, inputs.v)?,
            o: output(Operand::O, a.dtype.bytes())?,
            lse: a.lse.then(|| output(Operand::Lse, 4)).transpose()?,
            weights: a.weights.map(|_| output(Operand::Weights, 4)).transpose()?,
            mask: a.mask.map(|_| input(Operand::Mask, &mask)).transpose()?,
            bias: a.bias.map(|_| input(Operand::Bias, &bias)).transpose()?,
        })
    }

    /// The same contents in other buffers, copied on the device.
    #[cfg(feature = "bench")]
    pub(crate) fn copied(&self, engine: &Engine) -> Result<Self> {
        let mut encoder = engine.device.create_command_encoder(&Default::default());
        let mut copy = |from: &wgpu::Buffer| {
            let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
            let to = device::create_buffer(&engine.device, "a copy", from.size(), usage)?;
            encoder.copy_buffer_to_buffer(from, 0, &to, 0, from.size());
            Ok(to)
        };
        let copies = Self {
            q: copy(&self.q)?,
            k: copy(&self.k)?,
            v: copy(&self.v)?,
            o: copy(&self.o)?,
            lse: self.lse.as_ref().map(&mut copy).transpose()?,
            weights: self.weights.as_ref().map(&mut copy).transpose()?,
            mask: self.mask.as_ref().map(&mut copy).transpose()?,
            bias: self.bias.as_ref().map(&mut copy).transpose()?,
        };
        engine.queue.submit([encoder.finish()]);
        Ok(copies)
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
        let mut tensors = Tensors::new(&self.q, &self.k, &self.v, &self.o);
        tensors.lse = self.lse.as_ref().map(Into::into);
        tensors.weights = self.weights.as_ref().map(Into::into);
        tensors.mask = self.mask.as_ref().map(Into::into);
        tensors.bias = self.bias.as_ref().map(Into::into);
        tensors.workspace = workspace;
        tables.set(&mut tensors);
        Recorded::new(engine, plan, &tensors)
    }
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
