//! Attention on host slices: uploads, runs, reads back.

use crate::device::{self, Readback};
use crate::engine::{Engine, HostTables, Tensors, stored};
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
    /// Runs a call on host data and waits, blocking the thread.
    ///
    /// Inputs are rounded to the problem's storage type; q, k and v lie as the problem's layouts
    /// say. Outputs are without gaps: o `[batch, heads_q, seq_q, dim_v]`, lse
    /// `[batch, heads_q, seq_q]` (empty unless the problem asks for it), weights
    /// `[batch, heads_q, seq_q, seq_kv]`.
    ///
    /// # Errors
    /// Invalid argument naming the tensor, out of memory, device lost, internal.
    pub fn run_host(&self, plan: &Plan, inputs: &Inputs<'_>) -> Result<Outputs> {
        let pending = self.start_host(plan, inputs)?;
        let o = pending.o.read_blocking()?;
        let lse = pending.lse.map(Readback::read_blocking).transpose()?;
        let weights = pending.weights.map(Readback::read_blocking).transpose()?;
        Ok(collect(plan.problem(), &inputs.operands, &o, lse.as_deref(), weights.as_deref()))
    }

    /// [`run_host`](Self::run_host) without blocking the thread.
    ///
    /// # Errors
    /// As [`run_host`](Self::run_host).
    pub async fn run_host_async(&self, plan: &Plan, inputs: &Inputs<'_>) -> Result<Outputs> {
        let pending = self.start_host(plan, inputs)?;
        let o = pending.o.read().await?;
        let lse = match pending.lse {
            Some(lse) => Some(lse.read().await?),
            None => None,
        };
        let weights = match pending.weights {
            Some(weights) => Some(weights.read().await?),
            None => None,
        };
        Ok(collect(plan.problem(), &inputs.operands, &o, lse.as_deref(), weights.as_deref()))
    }

    fn start_host(&self, plan: &Plan, inputs: &Inputs<'_>) -> Result<Pending> {
        let problem = plan.problem();
        inputs.validate(problem)?;
        let a = problem.attention();
        let operands = problem.operands();
        let size =
            |operand: Operand| operands.iter().find(|(o, _)| *o == operand).map_or(0, |(_, n)| *n);
        let input = |name: &str, bytes: &[u8]| {
            device::upload(&self.device, name, bytes, wgpu::BufferUsages::STORAGE)
        };
        let tensor = |operand: Operand, values: &[f64]| {
            input(operand.name(), &stored(problem, operand, values))
        };
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
        let output =
            |name: &str, bytes: u64| device::create_buffer(&self.device, name, bytes, usage);

        let q = tensor(Operand::Q, inputs.q)?;
        let k = tensor(Operand::K, inputs.k)?;
        let v = tensor(Operand::V, inputs.v)?;
        let o_bytes = (size(Operand::O) * a.dtype.bytes()).next_multiple_of(4);
        let o = output("o", o_bytes)?;
        let lse_bytes = 4 * size(Operand::Lse);
        let lse = a.lse.then(|| output("lse", lse_bytes)).transpose()?;
        let weights_bytes = 4 * size(Operand::Weights);
        let weights = a.weights.map(|_| output("weights", weights_bytes)).transpose()?;
        let given = &inputs.operands;
        let mask_bytes: Vec<u8> = given.mask.iter().map(|&keep| keep.into()).collect();
        let mask = a.mask.map(|_| input("mask", &mask_bytes)).transpose()?;
        let bias_bytes = DType::F32.encode(given.bias.iter().copied());
        let bias = a.bias.map(|_| input("bias", &bias_bytes)).transpose()?;
        let tables = HostTables::new(problem, given);

        let mut tensors = Tensors::new(&q, &k, &v, &o);
        tensors.lse = lse.as_ref().map(Into::into);
        tensors.weights = weights.as_ref().map(Into::into);
        tensors.mask = mask.as_ref().map(Into::into);
        tensors.bias = bias.as_ref().map(Into::into);
        tables.set(&mut tensors);

        let bound = self.bind(plan, &tensors)?;
        let mut encoder = self.device.create_command_encoder(&Default::default());
        bound.encode(&mut encoder);
        let mut read = |buffer: &wgpu::Buffer, bytes: u64| {
            Readback::record(&self.device, &mut encoder, buffer, 0, bytes)
        };
        let pending = Pending {
            o: read(&o, o_bytes)?,
            lse: lse.as_ref().map(|lse| read(lse, lse_bytes)).transpose()?,
            weights: weights.as_ref().map(|w| read(w, weights_bytes)).transpose()?,
        };
        device::scoped(&self.device, "submitting attention", 0, || {
            self.queue.submit([encoder.finish()])
        })?;
        Ok(pending)
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
        weights: weights.map(|bytes| DType::F32.decode(bytes)),
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
