//! A layer on host slices: uploads, runs, reads back.

use crate::device::{self, Readback, Wait};
use crate::engine::{BufferView, Engine, HostTables, Tensors};
use crate::error::{Error, Result};
use crate::feature::Operands;
use crate::layer::{LayerPlan, LayerWeights, MultiHeadAttention};
use crate::problem::Problem;
use crate::tensor::DType;

/// A layer's learned tensors on the host; matrices are `[out, in]`, and what a layer lacks is empty.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HostWeights {
    /// `[heads_q · dim_qk, width_q]`.
    pub w_q: Vec<f64>,
    /// `[heads_kv · dim_qk, width_k]`.
    pub w_k: Vec<f64>,
    /// `[heads_kv · dim_v, width_v]`.
    pub w_v: Vec<f64>,
    /// `[width_out, heads_q · dim_v]`.
    pub w_o: Vec<f64>,
    /// `[heads_q · dim_qk]`, or empty.
    pub b_q: Vec<f64>,
    /// `[heads_kv · dim_qk]`, or empty.
    pub b_k: Vec<f64>,
    /// `[heads_kv · dim_v]`, or empty.
    pub b_v: Vec<f64>,
    /// `[width_out]`, or empty.
    pub b_o: Vec<f64>,
    /// The learned extra key, or empty.
    pub bias_k: Vec<f64>,
    /// The learned extra value, or empty.
    pub bias_v: Vec<f64>,
}

impl HostWeights {
    /// The tensors of PyTorch's `MultiheadAttention` under `prefix`, by their names in a state dict
    /// (`in_proj_weight` or `q_proj_weight` and its like, `in_proj_bias`, `out_proj.weight`,
    /// `out_proj.bias`, `bias_k`, `bias_v`), as `get` finds them in a safetensors, npz or any other file.
    ///
    /// ```
    /// use heedful::layer::HostWeights;
    /// let tensor = |name: &str| match name {
    ///     "attn.in_proj_weight" => Some(vec![1.0; 3 * 4 * 4]),
    ///     "attn.out_proj.weight" => Some(vec![1.0; 4 * 4]),
    ///     _ => None,
    /// };
    /// let weights = HostWeights::from_torch("attn.", tensor);
    /// assert_eq!((weights.w_k.len(), weights.b_k.len()), (16, 0));
    /// ```
    pub fn from_torch(prefix: &str, mut get: impl FnMut(&str) -> Option<Vec<f64>>) -> Self {
        let mut tensor = |name: &str| get(&format!("{prefix}{name}")).unwrap_or_default();
        let thirds = |values: Vec<f64>| -> [Vec<f64>; 3] {
            let n = values.len() / 3;
            [0, 1, 2].map(|i| values[i * n..(i + 1) * n].to_vec())
        };
        let mut matrices = thirds(tensor("in_proj_weight"));
        let apart = ["q_proj_weight", "k_proj_weight", "v_proj_weight"];
        for (matrix, name) in matrices.iter_mut().zip(apart).filter(|(m, _)| m.is_empty()) {
            *matrix = tensor(name);
        }
        let [w_q, w_k, w_v] = matrices;
        let [b_q, b_k, b_v] = thirds(tensor("in_proj_bias"));
        Self {
            w_q,
            w_k,
            w_v,
            w_o: tensor("out_proj.weight"),
            b_q,
            b_k,
            b_v,
            b_o: tensor("out_proj.bias"),
            bias_k: tensor("bias_k"),
            bias_v: tensor("bias_v"),
        }
    }

    /// Checks that every tensor is as long as the layer says.
    pub(super) fn validate(&self, layer: &MultiHeadAttention) -> Result<()> {
        let [q, k, v, o] = layer.inner_widths();
        let out = layer.width_out.unwrap_or(0);
        let matrix = |rows: u32, columns: u32| u64::from(rows) * u64::from(columns);
        let learned = |n: u32| if layer.learned_key { u64::from(n) } else { 0 };
        let tensors = [
            ("w_q", &self.w_q, matrix(q, layer.width_q), false),
            ("w_k", &self.w_k, matrix(k, layer.width_k), false),
            ("w_v", &self.w_v, matrix(v, layer.width_v), false),
            ("w_o", &self.w_o, matrix(out, o), false),
            ("b_q", &self.b_q, q.into(), true),
            ("b_k", &self.b_k, k.into(), true),
            ("b_v", &self.b_v, v.into(), true),
            ("b_o", &self.b_o, out.into(), true),
            ("bias_k", &self.bias_k, learned(k), false),
            ("bias_v", &self.bias_v, learned(v), false),
        ];
        for (name, values, wanted, optional) in tensors {
            let found = values.len() as u64;
            if found != wanted && !(optional && found == 0) {
                return Err(Error::invalid(name, found, format!("{wanted} elements")));
            }
        }
        Ok(())
    }
}

/// The inputs of a layer on the host.
#[derive(Debug, Clone, Copy)]
pub struct LayerInputs<'a> {
    /// `[batch, seq_q, width_q]`.
    pub x_q: &'a [f64],
    /// `[batch, keys of the input, width_k]`.
    pub x_k: &'a [f64],
    /// `[batch, keys of the input, width_v]`.
    pub x_v: &'a [f64],
    /// Masks, biases and tables of the attention between.
    pub operands: Operands<'a>,
    /// The learned tensors.
    pub weights: &'a HostWeights,
}

impl LayerInputs<'_> {
    pub(super) fn validate(&self, layer: &MultiHeadAttention) -> Result<()> {
        self.weights.validate(layer)?;
        let s = layer.attention.shape;
        let size = |rows: u32, width: u32| u64::from(s.batch) * u64::from(rows) * u64::from(width);
        let keys = layer.input_keys();
        let inputs = [
            ("x_q", self.x_q, size(s.seq_q, layer.width_q)),
            ("x_k", self.x_k, size(keys, layer.width_k)),
            ("x_v", self.x_v, size(keys, layer.width_v)),
        ];
        for (name, values, wanted) in inputs {
            if values.len() as u64 != wanted {
                return Err(Error::invalid(name, values.len(), format!("{wanted} elements")));
            }
        }
        Ok(())
    }
}

/// What a layer computes.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerOutputs {
    /// `[batch, seq_q, width_out]`, or the heads' outputs `[batch, seq_q, heads_q · dim_v]`.
    pub out: Vec<f64>,
    /// `[batch, heads_q, seq_q, seq_kv]`, or their mean over the heads, where they are asked for.
    pub weights: Option<Vec<f64>>,
}

impl Engine {
    /// Runs a layer on host data and waits, blocking the thread.
    ///
    /// # Errors
    /// Invalid argument naming the tensor, out of memory, device lost, internal.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn run_layer_host(
        &self,
        plan: &LayerPlan,
        inputs: &LayerInputs<'_>,
    ) -> Result<LayerOutputs> {
        pollster::block_on(self.run_layer_host_in(plan, inputs, Wait::Blocking))
    }

    /// `run_layer_host` without blocking the thread.
    ///
    /// # Errors
    /// As `run_layer_host`.
    pub async fn run_layer_host_async(
        &self,
        plan: &LayerPlan,
        inputs: &LayerInputs<'_>,
    ) -> Result<LayerOutputs> {
        self.run_layer_host_in(plan, inputs, Wait::Awaiting).await
    }

    async fn run_layer_host_in(
        &self,
        plan: &LayerPlan,
        inputs: &LayerInputs<'_>,
        wait: Wait,
    ) -> Result<LayerOutputs> {
        let [out, weights] = device::settled(|| self.start_layer_host(plan, inputs)).await?;
        let read = async |back: Option<Readback>| match back {
            Some(back) => Ok(Some(DType::F32.decode(&back.get(wait).await?))),
            None => Ok(None),
        };
        Ok(LayerOutputs {
            out: read(out).await?.unwrap_or_default(),
            weights: read(weights).await?,
        })
    }

    /// The output and, where the layer shows them, the weights on their way to the host.
    fn start_layer_host(
        &self,
        plan: &LayerPlan,
        inputs: &LayerInputs<'_>,
    ) -> Result<[Option<Readback>; 2]> {
        let (layer, problem) = (&plan.layer, plan.attention.problem());
        inputs.validate(layer)?;
        let buffers = LayerBuffers::new(self, layer, problem, inputs)?;
        let tables = HostTables::new(problem, &inputs.operands);
        let bound =
            self.make_layer(plan, &buffers.tensors(&tables), &buffers.weights(layer, inputs))?;
        let mut encoder = self.device.create_command_encoder(&Default::default());
        bound.encode(&mut encoder);
        let mut read = |buffer: &wgpu::Buffer, elements: u64| {
            Readback::record(&self.device, &mut encoder, buffer, 0, 4 * elements)
        };
        let [out_elements, shown_elements] = LayerBuffers::elements(layer);
        let out = read(&buffers.out, out_elements)?;
        let shown = buffers.shown.as_ref().map(|shown| read(shown, shown_elements)).transpose()?;
        device::scoped(&self.device, "submitting a layer", 0, || {
            self.queue.submit([encoder.finish()])
        })?;
        Ok([Some(out), shown])
    }
}

/// The tensors of a layer that is run on host data.
pub(super) struct LayerBuffers {
    x: [wgpu::Buffer; 3],
    /// In the order of [`HostWeights`].
    weights: [wgpu::Buffer; 10],
    pub(super) out: wgpu::Buffer,
    shown: Option<wgpu::Buffer>,
    lse: Option<wgpu::Buffer>,
    mask: Option<wgpu::Buffer>,
    bias: Option<wgpu::Buffer>,
}

impl LayerBuffers {
    /// Uploads the inputs of a layer, with what the call `problem` between its projections reads.
    pub(super) fn new(
        engine: &Engine,
        layer: &MultiHeadAttention,
        problem: &Problem,
        inputs: &LayerInputs<'_>,
    ) -> Result<Self> {
        let a = problem.attention();
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
        let upload = |name: &str, values: &[f64]| {
            let bytes = DType::F32.encode(values.iter().copied());
            device::upload(&engine.device, name, &bytes, usage)
        };
        let output = |name: &str, elements: u64| {
            device::create_buffer(&engine.device, name, (4 * elements).max(16), usage)
        };
        let w = inputs.weights;
        let [out_elements, shown_elements] = Self::elements(layer);
        let mask: Vec<u8> = inputs.operands.mask.iter().map(|&keep| keep.into()).collect();
        let mask = a.masks.dense.map(|_| device::upload(&engine.device, "mask", &mask, usage));
        Ok(Self {
            x: [upload("x_q", inputs.x_q)?, upload("x_k", inputs.x_k)?, upload("x_v", inputs.x_v)?],
            weights: [
                upload("w_q", &w.w_q)?,
                upload("w_k", &w.w_k)?,
                upload("w_v", &w.w_v)?,
                upload("w_o", &w.w_o)?,
                upload("b_q", &w.b_q)?,
                upload("b_k", &w.b_k)?,
                upload("b_v", &w.b_v)?,
                upload("b_o", &w.b_o)?,
                upload("bias_k", &w.bias_k)?,
                upload("bias_v", &w.bias_v)?,
            ],
            out: output("out", out_elements)?,
            shown: a.weights.map(|_| output("weights", shown_elements)).transpose()?,
            lse: a.lse.then(|| output("lse", a.shape.rows())).transpose()?,
            mask: mask.transpose()?,
            bias: a.bias.map(|_| upload("bias", inputs.operands.bias)).transpose()?,
        })
    }

    /// Elements of the output.
    pub(super) fn out_elements(layer: &MultiHeadAttention) -> u64 {
        Self::elements(layer)[0]
    }

    /// Elements of the output and of the weights that are shown.
    fn elements(layer: &MultiHeadAttention) -> [u64; 2] {
        let s = layer.attention.shape;
        let [.., context] = layer.inner_widths();
        let rows = u64::from(s.batch) * u64::from(s.seq_q);
        let heads = if layer.average_weights { 1 } else { u64::from(s.heads_q) };
        let width = layer.width_out.unwrap_or(context);
        [rows * u64::from(width), rows * heads * u64::from(s.seq_kv)]
    }

    pub(super) fn tensors<'a>(&'a self, tables: &'a HostTables<'_>) -> Tensors<'a> {
        let [x_q, x_k, x_v] = &self.x;
        let mut tensors = Tensors::new(x_q, x_k, x_v, &self.out);
        tensors.weights = self.shown.as_ref().map(Into::into);
        tensors.lse = self.lse.as_ref().map(Into::into);
        tensors.mask = self.mask.as_ref().map(Into::into);
        tensors.bias = self.bias.as_ref().map(Into::into);
        tables.set(&mut tensors);
        tensors
    }

    pub(super) fn weights<'a>(
        &'a self,
        layer: &MultiHeadAttention,
        inputs: &LayerInputs<'_>,
    ) -> LayerWeights<'a> {
        fn given<'b>(values: &[f64], buffer: &'b wgpu::Buffer) -> Option<BufferView<'b>> {
            (!values.is_empty()).then(|| buffer.into())
        }
        let w = inputs.weights;
        let [w_q, w_k, w_v, w_o, b_q, b_k, b_v, b_o, bias_k, bias_v] = &self.weights;
        LayerWeights {
            w_o: layer.width_out.map(|_| w_o.into()),
            b_q: given(&w.b_q, b_q),
            b_k: given(&w.b_k, b_k),
            b_v: given(&w.b_v, b_v),
            b_o: given(&w.b_o, b_o),
            bias_k: given(&w.bias_k, bias_k),
            bias_v: given(&w.bias_v, bias_v),
            ..LayerWeights::new(w_q, w_k, w_v)
        }
    }
}
