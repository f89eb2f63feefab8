//! `MultiHeadAttention`: projections, attention, output projection, in one pass of one encoder.

use std::fmt;

use crate::device::{self, Wait};
use crate::engine::{
    BufferView, Copied, Engine, Extent, Linear, Recorded, Rows, Tensors, average, check_apart,
    check_copies,
};
use crate::error::{Error, Rejection, Result};
use crate::kernel::MatrixTile;
use crate::plan::{Plan, Policy, SelfTest, check_matrix, tuning};
use crate::problem::{Attention, WeightsAt};
use crate::tensor::{DType, Layout, Storage};

/// Keys that the layer adds behind those of its input (PyTorch's `add_bias_kv` and `add_zero_attn`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ExtraKeys {
    /// One learned key and value, `bias_k` and `bias_v` among the weights.
    pub learned: bool,
    /// Then one key and value of zeros.
    pub zero: bool,
}

/// A multi-head attention layer: q = x_q W_qᵀ + b_q and likewise k and v, attention per head, and
/// the heads' outputs, one after another, times W_oᵀ, plus b_o (Vaswani et al., 2017).
///
/// Inputs are f32, `[batch, rows, width]` without gaps. Heads need not divide any width.
///
/// ```
/// use heedful::layer::MultiHeadAttention;
/// use heedful::{Attention, Shape};
/// // 12 heads of 32 channels on vectors of 384.
/// let attention = Attention::new(Shape::self_attention(2, 12, 28, 32));
/// let layer = MultiHeadAttention::new(attention, 384);
/// layer.validate()?;
/// # Ok::<(), heedful::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MultiHeadAttention {
    /// What happens between the projections: shape (seq_kv with the extra keys), masks, modifiers, normaliser.
    /// Storage is f32, and layouts are the layer's own.
    pub attention: Attention,
    /// Channels of x_q.
    pub width_q: u32,
    /// Channels of x_k.
    pub width_k: u32,
    /// Channels of x_v.
    pub width_v: u32,
    /// Channels of the output; `None` leaves W_o out.
    pub width_out: Option<u32>,
    /// Keys that the layer adds.
    pub extra: ExtraKeys,
    /// Whether weights are returned as their mean over the heads, `[batch, seq_q, seq_kv]`.
    pub average_weights: bool,
}

impl MultiHeadAttention {
    /// A layer whose inputs and output all have `width` channels.
    pub fn new(attention: Attention, width: u32) -> Self {
        Self {
            attention,
            width_q: width,
            width_k: width,
            width_v: width,
            width_out: Some(width),
            extra: ExtraKeys::default(),
            average_weights: false,
        }
    }

    /// Keys of the input, without the extra ones.
    pub fn input_keys(&self) -> u32 {
        let extra = u32::from(self.extra.learned) + u32::from(self.extra.zero);
        self.attention.shape.seq_kv.saturating_sub(extra)
    }

    /// The call between the projections: a row of a sequence holding its heads one after another.
    pub fn inner(&self) -> Attention {
        self.attention.clone().layout(Layout::Bshd)
    }

    /// Channels of q, of k, of v and of the heads' outputs together.
    pub(crate) fn inner_widths(&self) -> [u32; 4] {
        let s = self.attention.shape;
        let dim_q = self.attention.general.unwrap_or(s.dim_qk);
        [s.heads_q * dim_q, s.heads_kv * s.dim_qk, s.heads_kv * s.dim_v, s.heads_q * s.dim_v]
    }

    /// Checks sizes and the call between the projections.
    ///
    /// # Errors
    /// Invalid argument naming the first field that cannot be.
    pub fn validate(&self) -> Result<()> {
        // The projections write f32.
        let dtype = self.attention.dtype;
        if dtype != DType::F32 {
            return Err(Error::invalid("attention.dtype", dtype, "f32, as a layer computes"));
        }
        if let Some(storage) = self.attention.kv_storage.filter(|x| *x != Storage::F32) {
            return Err(Error::invalid(
                "attention.kv_storage",
                storage,
                "f32, as a layer computes",
            ));
        }
        if self.attention.paged.is_some() {
            return Err(Error::invalid("attention.paged", "keys in pages", "a layer's own keys"));
        }
        self.inner().validate()?;
        let extra = u32::from(self.extra.learned) + u32::from(self.extra.zero);
        if self.attention.packed.is_some() {
            return Err(Error::invalid("attention", "packed sequences", "padded ones in a layer"));
        }
        if self.attention.shape.seq_kv < extra {
            let wanted = format!("at least the {extra} extra keys");
            return Err(Error::invalid("seq_kv", self.attention.shape.seq_kv, wanted));
        }
        let widths = [
            ("width_q", self.width_q),
            ("width_k", self.width_k),
            ("width_v", self.width_v),
            ("width_out", self.width_out.unwrap_or(1)),
        ];
        for (name, width) in widths {
            if width == 0 || width > 1 << 20 {
                return Err(Error::invalid(name, width, "1..=2^20"));
            }
        }
        let shown = self.attention.weights == Some(WeightsAt::Probabilities);
        if self.average_weights && !shown {
            let found = format!("weights {:?}", self.attention.weights);
            return Err(Error::invalid("average_weights", found, "probabilities asked for"));
        }
        Ok(())
    }
}

/// The layer's learned tensors, f32; matrices are `[out, in]`, as PyTorch and safetensors have them.
///
/// A packed matrix serves as three views into it.
#[derive(Debug, Clone, Copy)]
pub struct LayerWeights<'a> {
    /// `[heads_q · dim_qk, width_q]`.
    pub w_q: BufferView<'a>,
    /// `[heads_kv · dim_qk, width_k]`.
    pub w_k: BufferView<'a>,
    /// `[heads_kv · dim_v, width_v]`.
    pub w_v: BufferView<'a>,
    /// `[width_out, heads_q · dim_v]`.
    pub w_o: Option<BufferView<'a>>,
    /// `[heads_q · dim_qk]`.
    pub b_q: Option<BufferView<'a>>,
    /// `[heads_kv · dim_qk]`.
    pub b_k: Option<BufferView<'a>>,
    /// `[heads_kv · dim_v]`.
    pub b_v: Option<BufferView<'a>>,
    /// `[width_out]`.
    pub b_o: Option<BufferView<'a>>,
    /// The learned extra key, `[heads_kv · dim_qk]`; usage `COPY_SRC`.
    pub bias_k: Option<BufferView<'a>>,
    /// The learned extra value, `[heads_kv · dim_v]`; usage `COPY_SRC`.
    pub bias_v: Option<BufferView<'a>>,
}

impl<'a> LayerWeights<'a> {
    /// The matrices of the three projections, no biases, no output matrix.
    pub fn new(
        w_q: impl Into<BufferView<'a>>,
        w_k: impl Into<BufferView<'a>>,
        w_v: impl Into<BufferView<'a>>,
    ) -> Self {
        Self {
            w_q: w_q.into(),
            w_k: w_k.into(),
            w_v: w_v.into(),
            w_o: None,
            b_q: None,
            b_k: None,
            b_v: None,
            b_o: None,
            bias_k: None,
            bias_v: None,
        }
    }
}

/// How a layer will run: its attention's plan.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerPlan {
    /// The layer.
    pub layer: MultiHeadAttention,
    /// The plan between its projections.
    pub attention: Plan,
    /// The tile of projections on matrix units, where [`Policy::matrix_units`] asked for them and they proved right: x and W
    /// are rounded to f16, sums are f32.
    pub projections: Option<MatrixTile>,
    /// What was wrong with projections on matrix units on this device.
    pub rejection: Option<Rejection>,
}

/// A layer tied to tensors, ready to be recorded.
#[derive(Debug)]
pub struct BoundLayer(Recorded);

impl BoundLayer {
    /// Records the layer into the caller's encoder: one compute pass, no submit, no wait, no readback between
    /// its steps.
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        self.0.encode(encoder, None);
    }

    /// Records the layer into a compute pass of the caller's, whose pipeline and bind group 0 it sets.
    ///
    /// # Errors
    /// As [`Bound::encode_pass`](crate::Bound::encode_pass), also for a learned extra key and value.
    pub fn encode_pass(&self, pass: &mut wgpu::ComputePass<'_>) -> Result<()> {
        self.0.encode_pass(pass)
    }

    /// Records the layer as a compute pass that writes timestamps at its ends.
    pub fn encode_timed(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        timestamps: wgpu::ComputePassTimestampWrites<'_>,
    ) {
        self.0.encode(encoder, Some(timestamps));
    }
}

/// What is recorded, a line for each dispatch: its kernel, its workgroups, and the bytes of each buffer that it
/// binds.
impl fmt::Display for BoundLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Engine {
    /// Plans a layer, blocking the thread while kernels are compiled and tried.
    ///
    /// # Errors
    /// As [`plan_with`](Self::plan_with), and invalid argument for the layer's own sizes.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn plan_layer(&self, layer: &MultiHeadAttention, policy: &Policy) -> Result<LayerPlan> {
        pollster::block_on(self.plan_layer_in(layer, policy, Wait::Blocking))
    }

    /// `plan_layer` without blocking the thread.
    ///
    /// # Errors
    /// As `plan_layer`.
    pub async fn plan_layer_async(
        &self,
        layer: &MultiHeadAttention,
        policy: &Policy,
    ) -> Result<LayerPlan> {
        self.plan_layer_in(layer, policy, Wait::Awaiting).await
    }

    async fn plan_layer_in(
        &self,
        layer: &MultiHeadAttention,
        policy: &Policy,
        wait: Wait,
    ) -> Result<LayerPlan> {
        layer.validate()?;
        self.check_queue()?;
        let tries = policy.self_test == SelfTest::OnFirstUse;
        let wanted =
            if policy.matrix_units { tuning::square_tile(&self.capabilities) } else { None };
        let mut rejection = None;
        if let (Some(tile), true) = (wanted, tries) {
            rejection = self.linear_is_wrong(Some(tile), wait).await?;
        }
        let projections = wanted.filter(|_| rejection.is_none());
        if tries
            && projections.is_none()
            && let Some(rejection) = self.linear_is_wrong(None, wait).await?
        {
            return Err(Error::unsupported("the layer's projections", vec![rejection]));
        }
        if layer.average_weights
            && tries
            && let Some(rejection) = self.average_is_wrong(wait).await?
        {
            return Err(Error::unsupported("the average over heads", vec![rejection]));
        }
        let attention = self.plan_in(&layer.inner(), policy, wait).await?;
        Ok(LayerPlan { layer: layer.clone(), attention, projections, rejection })
    }

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

impl Binding<'_> {
    fn bind(&self) -> Result<BoundLayer> {
        let layer = &self.plan.layer;
        let s = layer.attention.shape;
        let [width_q, width_k, width_v, width_o] = layer.inner_widths();
        self.check()?;
        check_apart(&self.extents())?;
        if let Some(tile) = self.plan.projections {
            check_matrix(&tile, &self.engine.capabilities)?;
        }
        let held = |name: &str, elements: u64| {
            let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
            let bytes = elements.saturating_mul(4).next_multiple_of(16).max(16);
            device::create_buffer(&self.engine.device, name, bytes, usage)
        };
        let product = |a: u32, b: u32, c: u32| u64::from(a) * u64::from(b) * u64::from(c);
        // New buffers are zero: the extra key of zeros is there already.
        let q = held("layer q", product(s.batch, s.seq_q, width_q))?;
        let k = held("layer k", product(s.batch, s.seq_kv, width_k))?;
        let v = held("layer v", product(s.batch, s.seq_kv, width_v))?;
        let context = held("layer context", product(s.batch, s.seq_q, width_o))?;
        let each = product(s.heads_q, s.seq_q, s.seq_kv);
        let shown = held(
            "layer weights",
            if layer.average_weights { u64::from(s.batch) * each } else { 0 },
        )?;

        let w = self.weights;
        let x = self.tensors;
        let keys = layer.input_keys();
        let inputs = [
            ("q projection", x.q, w.w_q, w.b_q, &q, [s.seq_q, s.seq_q, layer.width_q, width_q]),
            ("k projection", x.k, w.w_k, w.b_k, &k, [keys, s.seq_kv, layer.width_k, width_k]),
            ("v projection", x.v, w.w_v, w.b_v, &v, [keys, s.seq_kv, layer.width_v, width_v]),
        ];
        let mut before = Vec::new();
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
            before.extend(linear.draft(self.engine)?);
        }

        // Without an output matrix the attention writes the output itself.
        let o = if layer.width_out.is_some() { (&context).into() } else { x.o };
        let mut inner = Tensors { q: (&q).into(), k: (&k).into(), v: (&v).into(), o, ..*x };
        if layer.average_weights {
            inner.weights = Some((&shown).into());
        }
        let mut after = Vec::new();
        if let (Some(outputs), Some(w_o)) = (layer.width_out, w.w_o) {
            let stride = |width: u32| u64::from(s.seq_q) * u64::from(width);
            let linear = Linear {
                name: "output projection",
                batch: s.batch,
                rows: s.seq_q,
                inputs: width_o,
                outputs,
                x: Rows { view: (&context).into(), batch_stride: stride(width_o) },
                w: w_o,
                b: w.b_o,
                y: Rows { view: x.o, batch_stride: stride(outputs) },
                matrix: self.plan.projections,
            };
            after.extend(linear.draft(self.engine)?);
        }
        if let (true, Some(to)) = (layer.average_weights, x.weights) {
            let elements = u64::from(s.seq_q) * u64::from(s.seq_kv);
            after.extend(average(self.engine, [s.batch, s.heads_q], elements, &shown, to)?);
        }
        let plan = &self.plan.attention;
        let mut recorded = Recorded::between(self.engine, plan, &inner, before, after)?;
        recorded.copies.extend(self.extra_keys("bias_k", w.bias_k, &k, width_k));
        recorded.copies.extend(self.extra_keys("bias_v", w.bias_v, &v, width_v));
        check_copies(&self.engine.device, &recorded.copies)?;
        Ok(BoundLayer(recorded))
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
        let (Some(row), true) = (row, layer.extra.learned) else { return Vec::new() };
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
            ("bias_k", layer.extra.learned, w.bias_k.is_some()),
            ("bias_v", layer.extra.learned, w.bias_v.is_some()),
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
