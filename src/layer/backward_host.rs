//! The gradients of a layer on host slices: uploads, runs the layer and its gradients, reads back.

use crate::device::{self, Readback, Wait};
use crate::engine::{BufferView, Engine, HostTables};
use crate::error::{Error, Result};
use crate::layer::backward::{LayerBackwardPlan, LayerGradients, LayerTensor};
use crate::layer::backward_bound::LayerBackwardTensors;
use crate::layer::host::LayerBuffers;
use crate::layer::{LayerInputs, LayerPlan};
use crate::problem::Operand;
use crate::tensor::DType;

/// Gradients on their way to the host.
type Pending = (Vec<(LayerTensor, Readback)>, Vec<(Operand, Readback)>);

impl Engine {
    /// Computes a layer and its gradients from host data and waits, blocking the thread; `d_out` is the gradient of the
    /// output, `[batch, seq_q, width_out]`. Each input has a gradient of its own, also where one serves as several.
    ///
    /// # Errors
    /// Invalid argument naming the tensor, out of memory, device lost, internal.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn run_layer_backward_host(
        &self,
        forward: &LayerPlan,
        plan: &LayerBackwardPlan,
        inputs: &LayerInputs<'_>,
        d_out: &[f64],
    ) -> Result<LayerGradients> {
        let work = self.run_layer_backward_host_in(forward, plan, inputs, d_out, Wait::Blocking);
        pollster::block_on(work)
    }

    /// `run_layer_backward_host` without blocking the thread.
    ///
    /// # Errors
    /// As `run_layer_backward_host`.
    pub async fn run_layer_backward_host_async(
        &self,
        forward: &LayerPlan,
        plan: &LayerBackwardPlan,
        inputs: &LayerInputs<'_>,
        d_out: &[f64],
    ) -> Result<LayerGradients> {
        self.run_layer_backward_host_in(forward, plan, inputs, d_out, Wait::Awaiting).await
    }

    async fn run_layer_backward_host_in(
        &self,
        forward: &LayerPlan,
        plan: &LayerBackwardPlan,
        inputs: &LayerInputs<'_>,
        d_out: &[f64],
        wait: Wait,
    ) -> Result<LayerGradients> {
        let work = || self.start_layer_backward(forward, plan, inputs, d_out);
        let (tensors, between) = device::settled(work).await?;
        let mut gradients = LayerGradients::default();
        for (tensor, back) in tensors {
            let mut values = DType::F32.decode(&back.get(wait).await?);
            values.truncate(tensor.elements(&plan.backward.layer).unwrap_or(0) as usize);
            gradients.insert(tensor, values);
        }
        let problem = plan.attention.as_ref().map(|plan| plan.problem().problem());
        for (operand, back) in between {
            let mut values = DType::F32.decode(&back.get(wait).await?);
            let elements = problem.and_then(|problem| problem.elements(operand)).unwrap_or(0);
            values.truncate(elements as usize);
            gradients.between.insert(operand, values);
        }
        Ok(gradients)
    }

    fn start_layer_backward(
        &self,
        forward: &LayerPlan,
        plan: &LayerBackwardPlan,
        inputs: &LayerInputs<'_>,
        d_out: &[f64],
    ) -> Result<Pending> {
        let (layer, problem) = (&forward.layer, forward.attention.problem());
        inputs.validate(layer)?;
        let buffers = LayerBuffers::new(self, layer, problem, inputs)?;
        let tables = HostTables::new(problem, &inputs.operands);
        let (tensors, weights) = (buffers.tensors(&tables), buffers.weights(layer, inputs));
        let bound = self.make_layer(forward, &tensors, &weights)?;
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
        let wanted = LayerBuffers::out_elements(layer);
        if d_out.len() as u64 != wanted {
            return Err(Error::invalid("d_out", d_out.len(), format!("{wanted} elements")));
        }
        let d_out = DType::F32.encode(d_out.iter().copied());
        let d_out = device::upload(&self.device, "d_out", &d_out, usage)?;
        let empty = |elements: u64| {
            device::create_buffer(&self.device, "a gradient", (4 * elements).max(16), usage)
        };
        let mut outputs = Vec::new();
        for &tensor in &plan.backward.wanted {
            outputs.push((tensor, empty(tensor.elements(layer).unwrap_or(0))?));
        }
        let mut between = Vec::new();
        for &operand in &plan.backward.between {
            between.push((operand, empty(problem.elements(operand).unwrap_or(0))?));
        }
        let mut backward = LayerBackwardTensors::new(&d_out);
        for (tensor, buffer) in &outputs {
            backward = backward.with(*tensor, BufferView::from(buffer));
        }
        for (operand, buffer) in &between {
            backward = backward.with_between(*operand, BufferView::from(buffer));
        }
        let back = self.bind_layer_backward(plan, &bound, &tensors, &weights, &backward)?;
        let mut encoder = self.device.create_command_encoder(&Default::default());
        bound.encode(&mut encoder);
        back.encode(&mut encoder);
        let mut read = |buffer: &wgpu::Buffer| {
            Readback::record(&self.device, &mut encoder, buffer, 0, buffer.size())
        };
        let mut pending: Pending = Default::default();
        for (tensor, buffer) in &outputs {
            pending.0.push((*tensor, read(buffer)?));
        }
        for (operand, buffer) in &between {
            pending.1.push((*operand, read(buffer)?));
        }
        device::scoped(&self.device, "submitting a layer's gradients", 0, || {
            self.queue.submit([encoder.finish()])
        })?;
        Ok(pending)
    }
}
