//! The gradients of a layer tied to tensors: through the output projection, the attention and the projections of q, k
//! and v, in one pass of one encoder.

use std::fmt;

use crate::device;
use crate::engine::{
    BackwardTensors, BufferView, Draft, Engine, Extent, LinearBackward, Recorded, Rows, Tensors,
    check_apart, columns,
};
use crate::error::{Error, Result};
use crate::layer::backward::{LayerBackwardPlan, LayerTensor, Projection};
use crate::layer::bound::BoundLayer;
use crate::layer::multi_head::LayerWeights;
use crate::problem::Operand;

/// The tensors that a layer's gradients have beside those of the layer, f32.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LayerBackwardTensors<'a> {
    /// Gradient of the output, `[batch, seq_q, width_out]`.
    pub d_out: BufferView<'a>,
    /// Where each gradient that is wanted goes, of the shape of its tensor. Those of inputs may name one place: they
    /// are summed there, as the gradient of an input that serves as several.
    pub gradients: Vec<(LayerTensor, BufferView<'a>)>,
    /// The same of the call between the projections.
    pub between: Vec<(Operand, BufferView<'a>)>,
}

impl<'a> LayerBackwardTensors<'a> {
    /// The gradient of the output; places of gradients are added by [`with`](Self::with).
    pub fn new(d_out: impl Into<BufferView<'a>>) -> Self {
        Self { d_out: d_out.into(), gradients: Vec::new(), between: Vec::new() }
    }

    /// Where the gradient of a tensor goes.
    pub fn with(mut self, tensor: LayerTensor, view: impl Into<BufferView<'a>>) -> Self {
        self.gradients.push((tensor, view.into()));
        self
    }

    /// Where the gradient of a tensor of the call between the projections goes.
    pub fn with_between(mut self, operand: Operand, view: impl Into<BufferView<'a>>) -> Self {
        self.between.push((operand, view.into()));
        self
    }

    fn gradient(&self, tensor: LayerTensor) -> Option<BufferView<'a>> {
        self.gradients.iter().find(|(of, _)| *of == tensor).map(|(_, view)| *view)
    }
}

/// A layer's gradients tied to tensors, ready to be recorded.
#[derive(Debug)]
pub struct BoundLayerBackward(Recorded);

impl BoundLayerBackward {
    /// Records the gradients into the caller's encoder, behind the layer itself: one compute pass, no submit, no wait,
    /// no readback between its steps.
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        self.0.encode(encoder, None);
    }

    /// Records the gradients into a compute pass of the caller's, whose pipeline and bind group 0 it sets.
    ///
    /// # Errors
    /// As [`Bound::encode_pass`](crate::Bound::encode_pass).
    pub fn encode_pass(&self, pass: &mut wgpu::ComputePass<'_>) -> Result<()> {
        self.0.encode_pass(pass)
    }
}

/// What is recorded, a line for each dispatch.
impl fmt::Display for BoundLayerBackward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Engine {
    /// Ties the gradients of a layer to tensors: those that the layer was bound to, with the inputs as they were, and
    /// `backward` beside them. What lay between the layer's steps is read where `forward` left it, so its newest
    /// recording has run before. Where the layer's attention writes lse, that is read as `forward` wrote it, and so is
    /// o of a layer without an output projection.
    ///
    /// Gradients are written whole. They share no byte with anything else, but for those of inputs that name one place.
    ///
    /// # Errors
    /// Invalid argument naming the tensor, out of memory, internal.
    pub fn bind_layer_backward(
        &self,
        plan: &LayerBackwardPlan,
        forward: &BoundLayer,
        tensors: &Tensors<'_>,
        weights: &LayerWeights<'_>,
        backward: &LayerBackwardTensors<'_>,
    ) -> Result<BoundLayerBackward> {
        let binding = Binding { engine: self, plan, forward, tensors, weights, backward };
        let buffers: Vec<_> = binding.extents().iter().map(|x| (x.name, x.view.buffer)).collect();
        device::named(binding.bind(), &self.device, &buffers)
    }
}

/// Tensors whose gradients may be summed in one place.
const INPUTS: [LayerTensor; 3] = [LayerTensor::XQ, LayerTensor::XK, LayerTensor::XV];

/// What binding gradients of a layer looks at.
struct Binding<'a> {
    engine: &'a Engine,
    plan: &'a LayerBackwardPlan,
    forward: &'a BoundLayer,
    tensors: &'a Tensors<'a>,
    weights: &'a LayerWeights<'a>,
    backward: &'a LayerBackwardTensors<'a>,
}

/// What lies between the steps: gradients of q, k, v and of the heads' outputs.
struct Held {
    rows: [wgpu::Buffer; 3],
    context: wgpu::Buffer,
}

impl Binding<'_> {
    fn bind(&self) -> Result<BoundLayerBackward> {
        let layer = &self.plan.backward.layer;
        if self.forward.layer() != layer {
            let wanted = "a binding of the layer that was planned";
            return Err(Error::invalid("forward", "a binding of another layer", wanted));
        }
        self.check_wanted()?;
        check_apart(&self.extents())?;
        let held = self.hold()?;
        let before = self.before(&held)?;
        let Some(plan) = &self.plan.attention else {
            return Ok(BoundLayerBackward(Recorded::drafts(self.engine, before)?));
        };
        let after = self.after(&held)?;
        let between = self.forward.held();
        let [q, k, v] = [&between.q, &between.k, &between.v].map(Into::into);
        let (o, d_o) = match layer.width_out {
            Some(_) => ((&between.context).into(), (&held.context).into()),
            None => (self.tensors.o, self.backward.d_out),
        };
        let inner = Tensors { q, k, v, o, weights: None, ..*self.tensors };
        let mut tensors = BackwardTensors::new(inner, d_o);
        for (one, d) in Projection::all(layer).iter().zip(&held.rows) {
            if plan.problem().wants(one.operand) {
                tensors = tensors.with(one.operand, d);
            }
        }
        for (operand, view) in &self.backward.between {
            tensors = tensors.with(*operand, *view);
        }
        let (recorded, _) = self.engine.backward_between(plan, &tensors, before, after)?;
        Ok(BoundLayerBackward(recorded))
    }

    fn hold(&self) -> Result<Held> {
        let layer = &self.plan.backward.layer;
        let s = layer.attention.shape;
        let held = |name: &str, rows: u32, width: u32| {
            let elements = u64::from(s.batch) * u64::from(rows) * u64::from(width);
            let bytes = elements.saturating_mul(4).next_multiple_of(16).max(16);
            device::create_buffer(&self.engine.device, name, bytes, wgpu::BufferUsages::STORAGE)
        };
        let [.., context] = layer.inner_widths();
        let [q, k, v] = Projection::all(layer).map(|one| (one.seq, one.outputs()));
        Ok(Held {
            rows: [
                held("layer d_q", q.0, q.1)?,
                held("layer d_k", k.0, k.1)?,
                held("layer d_v", v.0, v.1)?,
            ],
            context: held("layer d_context", s.seq_q, context)?,
        })
    }

    /// Back through the output projection.
    fn before(&self, held: &Held) -> Result<Vec<Draft>> {
        let layer = &self.plan.backward.layer;
        let s = layer.attention.shape;
        let [.., inputs] = layer.inner_widths();
        let (Some(outputs), Some(w)) = (layer.width_out, self.weights.w_o) else {
            return Ok(Vec::new());
        };
        let stride = |width: u32| u64::from(s.seq_q) * u64::from(width);
        let context = &self.forward.held().context;
        let linear = LinearBackward {
            name: "output projection",
            batch: s.batch,
            rows: s.seq_q,
            inputs,
            outputs,
            d_y: Rows { view: self.backward.d_out, batch_stride: stride(outputs) },
            x: Rows { view: context.into(), batch_stride: stride(inputs) },
            w,
            d_x: self.plan.attention.is_some().then_some(((&held.context).into(), false)),
            d_w: self.backward.gradient(LayerTensor::WO),
            d_b: self.backward.gradient(LayerTensor::BO),
        };
        linear.drafts(self.engine)
    }

    /// Back through the projections of q, k and v.
    fn after(&self, held: &Held) -> Result<Vec<Draft>> {
        let layer = &self.plan.backward.layer;
        let s = layer.attention.shape;
        let (x, w) = (self.tensors, self.weights);
        let given = [(x.q, w.w_q), (x.k, w.w_k), (x.v, w.w_v)];
        let names = ["q projection", "k projection", "v projection"];
        let mut written: Vec<BufferView<'_>> = Vec::new();
        let mut drafts = Vec::new();
        for (((one, d), (x, w)), name) in
            Projection::all(layer).iter().zip(&held.rows).zip(given).zip(names)
        {
            let stride = |rows: u32, width: u32| u64::from(rows) * u64::from(width);
            let d_y = Rows { view: d.into(), batch_stride: stride(one.seq, one.outputs()) };
            let d_x = self.backward.gradient(one.x);
            let added = d_x.is_some_and(|view| written.iter().any(|other| same(*other, view)));
            written.extend(d_x);
            let linear = LinearBackward {
                name,
                batch: s.batch,
                rows: one.rows,
                inputs: one.inputs,
                outputs: one.outputs(),
                d_y,
                x: Rows { view: x, batch_stride: stride(one.rows, one.inputs) },
                w,
                d_x: d_x.map(|view| (view, added)),
                d_w: self.backward.gradient(one.w),
                d_b: self.backward.gradient(one.b),
            };
            drafts.extend(linear.drafts(self.engine)?);
            if let Some((extra, to)) = one.extra.and_then(|x| Some((x, self.backward.gradient(x)?)))
            {
                // The learned row comes first behind those of the input.
                let offset = 4 * stride(one.rows, one.outputs());
                let row = Rows { view: BufferView { buffer: d, offset }, ..d_y };
                let sizes = [s.batch, 1, one.outputs()];
                drafts.push(columns(self.engine, extra.gradient_name(), sizes, row, to)?);
            }
        }
        Ok(drafts)
    }

    /// Everything that is read, and the gradients.
    fn extents(&self) -> Vec<Extent<'_>> {
        let layer = &self.plan.backward.layer;
        let (x, w) = (self.tensors, self.weights);
        let bytes = |tensor: LayerTensor| 4 * tensor.elements(layer).unwrap_or(0);
        let read = [
            (LayerTensor::XQ, Some(x.q)),
            (LayerTensor::XK, Some(x.k)),
            (LayerTensor::XV, Some(x.v)),
            (LayerTensor::WQ, Some(w.w_q)),
            (LayerTensor::WK, Some(w.w_k)),
            (LayerTensor::WV, Some(w.w_v)),
            (LayerTensor::WO, w.w_o),
        ];
        let mut extents: Vec<Extent<'_>> = Vec::new();
        for (tensor, view) in read {
            extents.extend(view.map(|view| Extent::read(tensor.name(), view, bytes(tensor))));
        }
        let [.., context] = layer.inner_widths();
        let s = layer.attention.shape;
        let out = u64::from(s.batch) * u64::from(s.seq_q);
        let out = 4 * out * u64::from(layer.width_out.unwrap_or(context));
        extents.push(Extent::read("d_out", self.backward.d_out, out));
        // An output over the inputs has ended them.
        extents.push(Extent::written("o", x.o, out));
        if let Some(plan) = &self.plan.attention {
            let call = plan.problem().problem();
            let mut inner = x.extents(call, plan.workspace_bytes());
            inner.retain(|x| !["q", "k", "v", "o", "lse", "weights"].contains(&x.name));
            extents.extend(inner);
            extents.extend(x.lse.map(|lse| Extent::read("lse", lse, 4 * s.rows())));
            for (operand, view) in &self.backward.between {
                let bytes = 4 * call.elements(*operand).unwrap_or(0);
                extents.push(Extent::written(operand.gradient_name(), *view, bytes));
            }
        }
        for (i, (tensor, view)) in self.backward.gradients.iter().enumerate() {
            let shared = |(of, other): &(LayerTensor, BufferView<'_>)| {
                INPUTS.contains(of) && INPUTS.contains(tensor) && same(*other, *view)
            };
            // One that is summed with an earlier one lies where that does.
            if !self.backward.gradients[..i].iter().any(shared) {
                extents.push(Extent::written(tensor.gradient_name(), *view, bytes(*tensor)));
            }
        }
        extents
    }

    /// Checks that what is wanted has a place, and nothing else.
    fn check_wanted(&self) -> Result<()> {
        let asked = &self.plan.backward;
        let (given, between) = (&self.backward.gradients, &self.backward.between);
        for &tensor in LayerTensor::ALL {
            let n = given.iter().filter(|(of, _)| *of == tensor).count();
            check_places(tensor.gradient_name(), n, asked.wants(tensor))?;
        }
        for &operand in Operand::ALL {
            let n = between.iter().filter(|(of, _)| *of == operand).count();
            check_places(operand.gradient_name(), n, asked.between.contains(&operand))?;
        }
        self.check_shared()?;
        if self.plan.backward.layer.width_out.is_some() != self.weights.w_o.is_some() {
            let found = if self.weights.w_o.is_some() { "a tensor" } else { "none" };
            return Err(Error::invalid("w_o", found, "what the layer says"));
        }
        Ok(())
    }

    /// Gradients of inputs that name one place are of one size.
    fn check_shared(&self) -> Result<()> {
        let layer = &self.plan.backward.layer;
        let elements = |tensor: LayerTensor| tensor.elements(layer).unwrap_or(0);
        let of_inputs = || self.backward.gradients.iter().filter(|(of, _)| INPUTS.contains(of));
        for (tensor, view) in of_inputs() {
            let unlike = |(of, other): &&(LayerTensor, BufferView<'_>)| {
                same(*other, *view) && elements(*of) != elements(*tensor)
            };
            if let Some((of, _)) = of_inputs().find(unlike) {
                let found =
                    format!("{} elements where {of} has {}", elements(*tensor), elements(*of));
                return Err(Error::invalid(tensor.gradient_name(), found, "a place of its own"));
            }
        }
        Ok(())
    }
}

/// Checks that a gradient has one place where it is wanted, and none elsewhere.
fn check_places(name: &str, n: usize, wanted: bool) -> Result<()> {
    if n == usize::from(wanted) {
        return Ok(());
    }
    let found = if n == 0 { "none".to_owned() } else { format!("{n} tensors") };
    let wanted = if wanted { "one, as planned" } else { "none: the plan does not ask for it" };
    Err(Error::invalid(name, found, wanted))
}

/// Whether two views are one place.
fn same(a: BufferView<'_>, b: BufferView<'_>) -> bool {
    a.buffer == b.buffer && a.offset == b.offset
}
