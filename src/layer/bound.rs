//! A layer tied to tensors: projections, attention, output projection, in one pass of one encoder.

use std::fmt;

use crate::device;
use crate::engine::{
    BufferView, Copied, Draft, Engine, Extent, Linear, Recorded, Rows, Tensors, average,
    check_apart, check_copies,
};
use crate::error::{Error, Result};
use crate::layer::multi_head::{LayerPlan, LayerWeights, MultiHeadAttention};
use crate::plan::check_matrix;

/// A layer tied to tensors, ready to be recorded.
#[derive(Debug)]
pub struct BoundLayer {
    recorded: Recorded,
    layer: MultiHeadAttention,
    held: Held,
}

impl BoundLayer {
    pub(super) fn layer(&self) -> &MultiHeadAttention {
        &self.layer
    }

    pub(super) fn held(&self) -> &Held {
        &self.held
    }

    /// Records the layer into the caller's encoder: one compute pass, no submit, no wait, no readback between
    /// its steps.
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        self.recorded.encode(encoder, None);
    }

    /// Records the layer into a compute pass of the caller's, whose pipeline and bind group 0 it sets.
    ///
    /// # Errors
    /// As [`Bound::encode_pass`](crate::Bound::encode_pass), also for a learned extra key and value.
    pub fn encode_pass(&self, pass: &mut wgpu::ComputePass<'_>) -> Result<()> {
        self.recorded.encode_pass(pass)
    }

    /// Records the layer as a compute pass that writes timestamps at its ends.
    pub fn encode_timed(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        timestamps: wgpu::ComputePassTimestampWrites<'_>,
    ) {
        self.recorded.encode(encoder, Some(timestamps));
    }
}

/// What is recorded, a line for each dispatch: its kernel, its workgroups, and the bytes of each buffer that it
/// binds.
impl fmt::Display for BoundLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.recorded.fmt(f)
    }
}

impl Engine {
    /// Ties a layer to tensors. Of `tensors`, q, k and v are the layer's inputs x_q, x_k and x_v
    /// `[batch, rows, width]`, o is its output `[batch, seq_q, width_out]`, and the rest belongs to the
    /// attention between. What lies between the steps is held by the result.
    ///
    /// Everything may lie in one buffer. Outputs share no byte with weights, masks, tables or each other; they may lie
    /// over the inputs x_q, x_k and x_v, which have been read by then.
    ///
    /// # Errors
    /// Invalid argument naming the tensor, out of memory, internal.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn bind_layer(
        &self,
        plan: &LayerPlan,
        tensors: &Tensors<'_>,
        weights: &LayerWeights<'_>,
    ) -> Result<BoundLayer> {
        self.make_layer(plan, tensors, weights)
    }

    pub(super) fn make_layer(
        &self,
        plan: &LayerPlan,
        tensors: &Tensors<'_>,
        weights: &LayerWeights<'_>,
    ) -> Result<BoundLayer> {
        let binding = Binding { engine: self, plan, tensors, weights };
        let mut buffers = vec![("q", tensors.q.buffer), ("k", tensors.k.buffer)];
        buffers.push(("v", tensors.v.buffer));
        buffers.extend(binding.extents().iter().map(|x| (x.name, x.view.buffer)));
        device::named(binding.bind(), &self.device, &buffers)
    }

    /// `bind_layer` where the device's errors come later, as in a browser: it awaits them.
    ///
    /// # Errors
    /// As `bind_layer`.
    pub async fn bind_layer_async(
        &self,
        plan: &LayerPlan,
        tensors: &Tensors<'_>,
        weights: &LayerWeights<'_>,
    ) -> Result<BoundLayer> {
        device::settled(|| self.make_layer(plan, tensors, weights)).await
    }
}

/// What binding a layer looks at.
struct Binding<'a> {
    engine: &'a Engine,
    plan: &'a LayerPlan,
    tensors: &'a Tensors<'a>,
    weights: &'a LayerWeights<'a>,
}

/// What lies between the steps.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) q: wgpu::Buffer,
    pub(super) k: wgpu::Buffer,
    pub(super) v: wgpu::Buffer,
    /// The heads' outputs.
    pub(super) context: wgpu::Buffer,
    /// Weights of each head, where their mean is wanted.
    shown: wgpu::Buffer,
}

impl Binding<'_> {
    fn bind(&self) -> Result<BoundLayer> {
        let layer = &self.plan.layer;
        self.check()?;
        check_apart(&self.extents())?;
        if let Some(tile) = self.plan.projections {
            check_matrix(&tile, &self.engine.capabilities)?;
        }
        let held = self.hold()?;
        let (w, x) = (self.weights, self.tensors);
        // Without an output matrix the attention writes the output itself.
        let o = if layer.width_out.is_some() { (&held.context).into() } else { x.o };
        let [q, k, v] = [&held.q, &held.k, &held.v].map(Into::into);
        let mut inner = Tensors { q, k, v, o, ..*x };
        if layer.average_weights {
            inner.weights = Some((&held.shown).into());
        }
        let (before, after) = (self.before(&held)?, self.after(&held)?);
        let plan = &self.plan.attention;
        let mut recorded = Recorded::between(self.engine, plan, &inner, before, after)?;
        let [_, width_k, width_v, _] = layer.inner_widths();
        recorded.copies.extend(self.extra_keys("bias_k", w.bias_k, &held.k, width_k));
        recorded.copies.extend(self.extra_keys("bias_v", w.bias_v, &held.v, width_v));
        check_copies(&self.engine.device, &recorded.copies)?;
        Ok(BoundLayer { recorded, layer: layer.clone(), held })
    }

    /// Makes what lies between the steps.
    fn hold(&self) -> Result<Held> {
        let layer = &self.plan.layer;
        let s = layer.attention.shape;
        let [width_q, width_k, width_v, width_o] = layer.inner_widths();
        let held = |name: &str, elements: u64| {
            let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
            let bytes = elements.saturating_mul(4).next_multiple_of(16).max(16);
            device::create_buffer(&self.engine.device, name, bytes, usage)
        };
        let product = |a: u32, b: u32, c: u32| u64::from(a) * u64::from(b) * u64::from(c);
        let each = product(s.heads_q, s.seq_q, s.seq_kv);
        let shown = if layer.average_weights { u64::from(s.batch) * each } else { 0 };
        // New buffers are zero: the extra key of zeros is there already.
        Ok(Held {
            q: held("layer q", product(s.batch, s.seq_q, width_q))?,
            k: held("layer k", product(s.batch, s.seq_kv, width_k))?,
            v: held("layer v", product(s.batch, s.seq_kv, width_v))?,
            context: held("layer context", product(s.batch, s.seq_q, width_o))?,
            shown: held("layer weights", shown)?,
        })
    }

    /// The projections of q, k and v.
    fn before(&self, held: &Held) -> Result<Vec<Draft>> {
        let layer = &self.plan.layer;
        let s = layer.attention.shape;
        let [width_q, width_k, width_v, _] = layer.inner_widths();
        let (w, x, keys) = (self.weights, self.tensors, layer.input_keys());
        let inputs = [
            (
                "q projection",
                x.q,
                w.w_q,
                w.b_q,
                &held.q,
                [s.seq_q, s.seq_q, layer.width_q, width_q],
            ),
            ("k projection", x.k, w.w_k, w.b_k, &held.k, [keys, s.seq_kv, layer.width_k, width_k]),
            ("v projection", x.v, w.w_v, w.b_v, &held.v, [keys, s.seq_kv, layer.width_v, width_v]),
        ];
        let mut drafts = Vec::new();
        for (name, x, w, b, y, [rows, stored, inputs, outputs]) in inputs {
            let linear = Linear {
                name,
                batch: s.batch,
                rows,
                inputs,
                outputs,
                x: Rows { view: x, batch_stride: u64::from(rows) * u64::from(inputs) },
                w,
                b,
                y: Rows { view: y.into(), batch_stride: u64::from(stored) * u64::from(outputs) },
                matrix: self.plan.projections,
            };
            drafts.extend(linear.draft(self.engine)?);
        }
        Ok(drafts)
    }

    /// The output projection, and the mean of the weights over heads.
    fn after(&self, held: &Held) -> Result<Vec<Draft>> {
        let layer = &self.plan.layer;
        let s = layer.attention.shape;
        let [.., width_o] = layer.inner_widths();
        let (w, x) = (self.weights, self.tensors);
        let mut drafts = Vec::new();
        if let (Some(outputs), Some(w_o)) = (layer.width_out, w.w_o) {
            let stride = |width: u32| u64::from(s.seq_q) * u64::from(width);
            let linear = Linear {
                name: "output projection",
                batch: s.batch,
                rows: s.seq_q,
                inputs: width_o,
                outputs,
                x: Rows { view: (&held.context).into(), batch_stride: stride(width_o) },
                w: w_o,
                b: w.b_o,
                y: Rows { view: x.o, batch_stride: stride(outputs) },
                matrix: self.plan.projections,
            };
            drafts.extend(linear.draft(self.engine)?);
        }
        if let (true, Some(to)) = (layer.average_weights, x.weights) {
            let elements = u64::from(s.seq_q) * u64::from(s.seq_kv);
            drafts.extend(average(self.engine, [s.batch, s.heads_q], elements, &held.shown, to)?);
        }
        Ok(drafts)
    }

    /// The learned key or value into its row of every sequence.
    fn extra_keys(
        &self,
        name: &'static str,
        row: Option<BufferView<'_>>,
        to: &wgpu::Buffer,
        width: u32,
    ) -> Vec<Copied> {
        let layer = &self.plan.layer;
        let (Some(row), true) = (row, layer.learned_key) else { return Vec::new() };
        let s = layer.attention.shape;
        let bytes = 4 * u64::from(width);
        let one = |batch: u32| {
            let at = u64::from(batch) * u64::from(s.seq_kv) + u64::from(layer.input_keys());
            Copied {
                name,
                source: row.buffer.clone(),
                source_offset: row.offset,
                target: Some(to.clone()),
                offset: at * bytes,
                bytes,
            }
        };
        (0..s.batch).map(one).collect()
    }

    /// Outputs, and all that is read after the first projections or by the next run: they lie apart.
    fn extents(&self) -> Vec<Extent<'_>> {
        let layer = &self.plan.layer;
        let s = layer.attention.shape;
        let x = self.tensors;
        let [inner_q, inner_k, inner_v, inner_o] = layer.inner_widths().map(u64::from);
        let [width_q, width_k, width_v] =
            [layer.width_q, layer.width_k, layer.width_v].map(u64::from);
        let outputs = layer.width_out.map_or(inner_o, u64::from);
        let w = self.weights;
        let learned = [
            ("w_q", Some(w.w_q), inner_q * width_q),
            ("w_k", Some(w.w_k), inner_k * width_k),
            ("w_v", Some(w.w_v), inner_v * width_v),
            ("w_o", w.w_o, outputs * inner_o),
            ("b_q", w.b_q, inner_q),
            ("b_k", w.b_k, inner_k),
            ("b_v", w.b_v, inner_v),
            ("b_o", w.b_o, outputs),
            ("bias_k", w.bias_k, inner_k),
            ("bias_v", w.bias_v, inner_v),
        ];
        let mut extents: Vec<Extent<'_>> = learned
            .into_iter()
            .filter_map(|(name, view, n)| view.map(|view| Extent::read(name, view, 4 * n)))
            .collect();
        let plan = &self.plan.attention;
        let mut inner = x.extents(plan.problem(), plan.workspace_bytes());
        let average = layer.average_weights;
        inner.retain(|x| !["q", "k", "v", "o"].contains(&x.name));
        inner.retain(|x| !(average && x.name == "weights"));
        extents.extend(inner);
        let rows = u64::from(s.batch) * u64::from(s.seq_q);
        extents.push(Extent::written("o", x.o, 4 * rows * outputs));
        if let (true, Some(view)) = (average, x.weights) {
            extents.push(Extent::written("weights", view, 4 * rows * u64::from(s.seq_kv)));
        }
        extents
    }

    fn check(&self) -> Result<()> {
        let layer = &self.plan.layer;
        let w = self.weights;
        let [_, width_k, width_v, _] = layer.inner_widths();
        let pairs = [
            ("w_o", layer.width_out.is_some(), w.w_o.is_some()),
            ("bias_k", layer.learned_key, w.bias_k.is_some()),
            ("bias_v", layer.learned_key, w.bias_v.is_some()),
        ];
        for (name, wanted, given) in pairs {
            if wanted != given {
                let text = |there: bool| if there { "a tensor" } else { "none" };
                let wanted = format!("{}, as the layer says", text(wanted));
                return Err(Error::invalid(name, text(given), wanted));
            }
        }
        for (name, row, width) in [("bias_k", w.bias_k, width_k), ("bias_v", w.bias_v, width_v)] {
            let Some(row) = row else { continue };
            let end = row.offset.saturating_add(4 * u64::from(width));
            let copied = row.buffer.usage().contains(wgpu::BufferUsages::COPY_SRC);
            if end > row.buffer.size() || !row.offset.is_multiple_of(4) || !copied {
                let found = format!("{} B, {:?}", row.buffer.size(), row.buffer.usage());
                let wanted = format!("{} B and usage COPY_SRC", 4 * u64::from(width));
                return Err(Error::invalid(name, found, wanted));
            }
        }
        if layer.average_weights {
            let s = layer.attention.shape;
            let elements = u64::from(s.batch) * u64::from(s.seq_q) * u64::from(s.seq_kv);
            match self.tensors.weights {
                Some(view) if view.offset + 4 * elements <= view.buffer.size() => {}
                _ => {
                    let wanted = format!("{elements} f32");
                    return Err(Error::invalid("weights", "no room for them", wanted));
                }
            }
        }
        Ok(())
    }
}
