//! Gradients on the GPU: their tensors, and from a plan to dispatches.

use std::fmt;

use crate::device;
use crate::engine::apart::{Extent, check_apart};
use crate::engine::bound::{Recorded, Tables};
use crate::engine::dispatch::{self, Draft};
use crate::engine::parameters::problem_params;
use crate::engine::places::Places;
use crate::engine::range::BoundRange;
use crate::engine::{BufferView, Engine, Tensors};
use crate::error::{Error, Result};
use crate::kernel::{
    Access, BATCH_N, Binding, CARRY_IN, CARRY_OUT, Element, KernelSpec, Params, SMALL_TABLES,
    TABLE_WIDTH, Width, Work,
};
use crate::plan::{BackwardPlan, BackwardStep, Block, Makes, Policy};
use crate::problem::{Backward, BackwardProblem, Operand};
use crate::tensor::Strides;

/// The tensors of a backward pass.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BackwardTensors<'a> {
    /// The call's own, as for the forward pass, with what that wrote into o (and lse).
    pub forward: Tensors<'a>,
    /// Gradient of o, laid out and stored as o.
    pub d_o: BufferView<'a>,
    /// Gradient of lse, f32, laid out as lse; where the problem takes one.
    pub d_lse: Option<BufferView<'a>>,
    /// Gradient of the returned weights, f32 `[batch, heads_q, seq_q, seq_kv]`; where the problem takes one.
    pub d_weights: Option<BufferView<'a>>,
    /// Where each gradient that is wanted goes: those of q, k and v laid out and stored as these, others f32.
    pub gradients: Vec<(Operand, BufferView<'a>)>,
}

impl<'a> BackwardTensors<'a> {
    /// The tensors of a call and the gradient of its o; gradients are added by [`with`](Self::with).
    pub fn new(forward: Tensors<'a>, d_o: impl Into<BufferView<'a>>) -> Self {
        let (d_lse, d_weights, gradients) = (None, None, Vec::new());
        Self { forward, d_o: d_o.into(), d_lse, d_weights, gradients }
    }

    /// Where the gradient of a tensor goes.
    pub fn with(mut self, operand: Operand, view: impl Into<BufferView<'a>>) -> Self {
        self.gradients.push((operand, view.into()));
        self
    }

    /// A gradient of lse that comes in, f32, laid out as lse.
    pub fn d_lse(mut self, view: impl Into<BufferView<'a>>) -> Self {
        self.d_lse = Some(view.into());
        self
    }

    /// A gradient of the returned weights that comes in, f32 `[batch, heads_q, seq_q, seq_kv]`.
    pub fn d_weights(mut self, view: impl Into<BufferView<'a>>) -> Self {
        self.d_weights = Some(view.into());
        self
    }

    fn gradient(&self, operand: Operand) -> Option<BufferView<'a>> {
        self.gradients.iter().find(|(of, _)| *of == operand).map(|(_, view)| *view)
    }

    /// The tensors beside the call's own: name, view, bytes of an element, elements, whether written.
    fn others(&self, problem: &BackwardProblem) -> Result<Vec<Other<'a>>> {
        let call = problem.problem();
        let asked = problem.backward();
        let elements = |operand| call.elements(operand).unwrap_or(0);
        let bits = |operand| call.element_bits(operand) / 8;
        let mut all = vec![Other {
            name: "d_o",
            view: self.d_o,
            bytes: bits(Operand::O),
            elements: elements(Operand::O),
            written: false,
        }];
        let incoming = [
            ("d_lse", self.d_lse, asked.from_lse, Operand::Lse),
            ("d_weights", self.d_weights, asked.from_weights, Operand::Weights),
        ];
        for (name, view, on, operand) in incoming {
            match (view, on) {
                (None, false) => {}
                (Some(view), true) => {
                    let elements = elements(operand);
                    all.push(Other { name, view, bytes: 4, elements, written: false });
                }
                (view, _) => return Err(presence(name, view.is_some())),
            }
        }
        for &operand in problem.wanted() {
            let name = operand.gradient_name();
            let Some(view) = self.gradient(operand) else { return Err(presence(name, false)) };
            let elements = elements(operand);
            all.push(Other { name, view, bytes: bits(operand), elements, written: true });
        }
        for (operand, _) in &self.gradients {
            let places = self.gradients.iter().filter(|(other, _)| other == operand).count();
            if places > 1 {
                let found = format!("{places} tensors");
                return Err(Error::invalid(operand.gradient_name(), found, "one"));
            }
            if !problem.wants(*operand) {
                return Err(presence(operand.gradient_name(), true));
            }
        }
        Ok(all)
    }
}

/// A tensor beside the call's own.
struct Other<'a> {
    name: &'static str,
    view: BufferView<'a>,
    bytes: u64,
    elements: u64,
    written: bool,
}

fn presence(name: &str, given: bool) -> Error {
    let (found, wanted) = match given {
        true => ("a tensor", "none: the problem does not ask for it"),
        false => ("none", "a tensor: the problem asks for it"),
    };
    Error::invalid(name, found, wanted)
}

/// A backward plan tied to tensors, ready to be recorded any number of times.
#[derive(Debug)]
pub struct BoundBackward(Recorded);

impl BoundBackward {
    /// Records the gradients into the caller's encoder: one compute pass, no submit, no wait.
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        self.0.encode(encoder, None);
    }

    /// Records the gradients into a compute pass of the caller's, whose pipeline and bind group 0 they set.
    ///
    /// # Errors
    /// As [`Bound::encode_pass`](crate::Bound::encode_pass).
    pub fn encode_pass(&self, pass: &mut wgpu::ComputePass<'_>) -> Result<()> {
        self.0.encode_pass(pass)
    }

    /// Dispatches of one pass.
    pub fn dispatch_count(&self) -> usize {
        self.0.dispatches.len()
    }
}

/// What is recorded, a line for each dispatch.
impl fmt::Display for BoundBackward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        dispatch::show(&self.0.dispatches, f)
    }
}

impl Engine {
    /// Plans the gradients of a call for this device.
    ///
    /// # Errors
    /// Invalid argument for gradients that a call cannot have; unsupported, with the reason.
    pub fn plan_backward(&self, backward: &Backward) -> Result<BackwardPlan> {
        self.plan_backward_with(backward, &Policy::default())
    }

    /// [`plan_backward`](Self::plan_backward) under a policy of the caller's: its checks, its use of f16 and its
    /// bound on scratch count here.
    ///
    /// # Errors
    /// As [`plan_backward`](Self::plan_backward).
    pub fn plan_backward_with(&self, backward: &Backward, policy: &Policy) -> Result<BackwardPlan> {
        BackwardPlan::new(&backward.validate()?, &self.capabilities, policy)
    }

    /// Ties a backward plan to tensors. Gradients are written whole, nothing is added to what was there; each shares no
    /// byte with anything else.
    ///
    /// # Errors
    /// Invalid argument naming the tensor, out of memory, internal.
    pub fn bind_backward(
        &self,
        plan: &BackwardPlan,
        tensors: &BackwardTensors<'_>,
    ) -> Result<BoundBackward> {
        self.check_queue()?;
        let problem = plan.problem();
        let call = problem.problem();
        plan.check_kernels(&self.capabilities)?;
        tensors.forward.validate(call, plan.workspace_bytes())?;
        let others = tensors.others(problem)?;
        let mut extents = tensors.forward.extents(call, plan.workspace_bytes());
        // What the forward pass wrote is only read here.
        for extent in extents.iter_mut().filter(|extent| extent.name != "workspace") {
            extent.written = false;
        }
        extents.extend(others.iter().map(|x| match x.written {
            true => Extent::written(x.name, x.view, x.elements * x.bytes),
            false => Extent::read(x.name, x.view, x.elements * x.bytes),
        }));
        check_apart(&extents)?;
        let mut tables = Tables::new(call, &tensors.forward, 0);
        let aux = tables.upload(self, call, &plan.kernels())?;
        let drafting =
            Drafting::new(self, plan, tensors, problem_params(call, &tables.base), &aux)?;
        let buffers: Vec<_> = extents.iter().map(|x| (x.name, x.view.buffer)).collect();
        let bound = drafting.drafts().and_then(|drafts| dispatch::bind(self, drafts));
        let dispatches = device::named(bound, &self.device, &buffers)?;
        let places = Places::new(self, &extents);
        Ok(BoundBackward(Recorded::of(dispatches, tables, aux, places)))
    }
}

struct Drafting<'a> {
    engine: &'a Engine,
    plan: &'a BackwardPlan,
    tensors: &'a BackwardTensors<'a>,
    base: Params,
    aux: &'a wgpu::Buffer,
    scratch: wgpu::Buffer,
    scratch_offset: u64,
}

/// What stands for q, k, v or o in a dispatch: a tensor and how it lies.
type Role<'a> = (Binding, &'static str, BufferView<'a>, Operand);

impl<'a> Drafting<'a> {
    fn new(
        engine: &'a Engine,
        plan: &'a BackwardPlan,
        tensors: &'a BackwardTensors<'a>,
        base: Params,
        aux: &'a wgpu::Buffer,
    ) -> Result<Self> {
        let (scratch, scratch_offset) = match tensors.forward.workspace {
            Some(view) => (view.buffer.clone(), view.offset),
            None => (engine.scratch(plan.workspace_bytes())?, 0),
        };
        Ok(Self { engine, plan, tensors, base, aux, scratch, scratch_offset })
    }

    /// Every dispatch in order: block by block all that goes by blocks, then what goes over all rows.
    fn drafts(&self) -> Result<Vec<Draft>> {
        let shape = self.plan.problem().problem().attention().shape;
        let mut drafts = Vec::new();
        let whole = Block { batch: 0..shape.batch, heads: 0..shape.heads_q, rows: 0..shape.seq_q };
        let by_blocks = |step: &&BackwardStep| step.makes != Makes::Gradient(Operand::Sinks);
        for block in self.plan.blocks() {
            for step in self.plan.steps.iter().filter(by_blocks) {
                drafts.push(self.draft(step, &block)?);
            }
        }
        for step in self.plan.steps.iter().filter(|step| !by_blocks(step)) {
            drafts.push(self.draft(step, &whole)?);
        }
        let nothing = |draft: &Draft| draft.kernel.grid(&draft.work).contains(&0);
        drafts.retain(|draft| !nothing(draft));
        Ok(drafts)
    }

    /// What a step binds as q, k, v and o.
    fn roles(&self, makes: Makes) -> Vec<Role<'a>> {
        let t = self.tensors;
        let d_o = (t.d_o, "d_o", Operand::O);
        let q = (t.forward.q, "q", Operand::Q);
        let k = (t.forward.k, "k", Operand::K);
        let v = (t.forward.v, "v", Operand::V);
        let of = |binding, (view, name, operand)| (binding, name, view, operand);
        let out = |operand| {
            let view = t.gradient(operand).unwrap_or(t.d_o);
            (Binding::O, operand.gradient_name(), view, operand)
        };
        match makes {
            Makes::Products => vec![of(Binding::Q, q), of(Binding::K, k)],
            Makes::Incoming => vec![of(Binding::Q, d_o), of(Binding::K, v)],
            Makes::Gradient(Operand::V) => vec![of(Binding::Q, d_o), out(Operand::V)],
            Makes::Gradient(Operand::K) => vec![of(Binding::Q, q), out(Operand::K)],
            Makes::Gradient(Operand::Q) => vec![of(Binding::V, k), out(Operand::Q)],
            Makes::Rows | Makes::Gradient(_) => Vec::new(),
        }
    }

    fn draft(&self, step: &BackwardStep, block: &Block) -> Result<Draft> {
        let call = self.plan.problem().problem();
        let s = call.attention().shape;
        let mut kernel = step.kernel.clone();
        let makes_k = step.makes == Makes::Gradient(Operand::K);
        let mut params = Params {
            batch0: block.batch.start,
            head0: block.heads.start,
            head_n: block.heads.len() as u32,
            row0: block.rows.start,
            row_n: block.rows.len() as u32,
            key0: 0,
            key_n: s.seq_kv,
            ..self.base
        };
        let mut ranges = Vec::new();
        for (binding, name, view, operand) in self.roles(step.makes) {
            let n = call.elements(operand).unwrap_or(0);
            let (range, base) = self.whole(name, view, n, call.element_bits(operand) / 8)?;
            params.base_mut(binding).into_iter().for_each(|place| *place = base);
            place_strides(&mut params, binding, call.strides(operand));
            match_width(&mut kernel, binding, view, call.element_bits(operand) / 8);
            ranges.push((binding, range));
        }
        match step.makes {
            Makes::Incoming => params.dim_qk = s.dim_v,
            Makes::Gradient(Operand::K | Operand::Q) => params.dim_v = s.dim_qk,
            Makes::Products | Makes::Rows | Makes::Gradient(_) => {}
        }
        if let Makes::Gradient(operand @ (Operand::K | Operand::V)) = step.makes {
            // Where a sequence starts among the keys.
            place_strides(&mut params, Binding::K, call.strides(operand));
        }
        let [first, last] = [block.rows.start == 0, block.rows.end == s.seq_q];
        if kernel.writes.carry {
            params = params.with([CARRY_IN.is(u32::from(!first)), CARRY_OUT.is(u32::from(!last))]);
        }
        let mut work = Work {
            batch: block.batch.len() as u32,
            heads: block.heads.len() as u32,
            group: s.group(),
            rows: block.rows.len() as u32,
            keys: s.seq_kv,
            columns: params.dim_v,
            ..Work::default()
        };
        if step.makes == Makes::Gradient(Operand::Bias) {
            let (elements, later) = self.of_bias(block);
            work.elements = elements;
            params = params.with([CARRY_IN.is(u32::from(later))]);
        }
        if let Makes::Gradient(operand @ (Operand::AlibiSlopes | Operand::Relative)) = step.makes {
            let elements = call.elements(operand).unwrap_or(0);
            let width = elements / u64::from(s.heads_q.max(1));
            work.elements = width;
            let later = block.batch.start > 0 || block.rows.start > 0;
            params = params.with([TABLE_WIDTH.is(width as u32), CARRY_IN.is(u32::from(later))]);
        }
        params = params.with([BATCH_N.is(work.batch)]);
        for bound in kernel.bindings() {
            let known = ranges.iter().any(|(binding, _)| *binding == bound.binding);
            if known || bound.binding == Binding::Params {
                continue;
            }
            let (range, base) = self.other(&step.makes, bound.binding, bound.access, makes_k)?;
            params.base_mut(bound.binding).into_iter().for_each(|place| *place = base);
            ranges.push((bound.binding, range));
        }
        Ok(Draft::new(kernel, work, params, ranges))
    }

    /// Elements of the bias that a block touches, and whether an earlier block has touched them.
    fn of_bias(&self, block: &Block) -> (u64, bool) {
        let a = self.plan.problem().problem().attention();
        let strides = a.bias.map(|bias| bias.strides()).unwrap_or_default();
        let axes = [&block.batch, &block.heads, &block.rows, &(0..a.shape.seq_kv)];
        let own = strides.iter().zip(axes).map(|(stride, axis)| match stride {
            0 => u64::from(!axis.is_empty()),
            _ => axis.len() as u64,
        });
        let later = strides.iter().zip(axes).any(|(stride, axis)| *stride == 0 && axis.start > 0);
        (own.product(), later)
    }

    /// Scratch, tables, masks, biases, and what comes in beside d_o.
    fn other(
        &self,
        makes: &Makes,
        binding: Binding,
        access: Access,
        second: bool,
    ) -> Result<(BoundRange, u32)> {
        let t = self.tensors;
        let call = self.plan.problem().problem();
        let view = |name, view: Option<BufferView<'a>>, operand| {
            let Some(view) = view else {
                return Err(Error::internal("binding gradients", format!("no {name}")));
            };
            let n = call.elements(operand).unwrap_or(0);
            self.whole(name, view, n, call.element_bits(operand).max(8) / 8)
        };
        match (binding, makes) {
            (Binding::Aux, _) => {
                let uniform = access == Access::Uniform;
                let size = if uniform { 4 * u64::from(SMALL_TABLES) } else { self.aux.size() };
                Ok((BoundRange { buffer: self.aux.clone(), offset: 0, size }, 0))
            }
            (Binding::Mask, _) => view("mask", t.forward.mask, Operand::Mask),
            (Binding::Bias, _) => view("bias", t.forward.bias, Operand::Bias),
            (Binding::DLse, _) => view("d_lse", t.d_lse, Operand::Lse),
            (Binding::DWeights, _) => view("d_weights", t.d_weights, Operand::Weights),
            (Binding::DTable, Makes::Gradient(operand)) => {
                view(operand.gradient_name(), t.gradient(*operand), *operand)
            }
            // The second plane is where products of d_o and v go, and where gradients of products come from.
            (Binding::Scores, Makes::Incoming | Makes::Gradient(Operand::Q | Operand::K)) => {
                self.part(Binding::Grads, 0)
            }
            (Binding::Carry, _) => self.part(binding, usize::from(second)),
            (binding, _) => self.part(binding, 0),
        }
    }

    fn part(&self, binding: Binding, n: usize) -> Result<(BoundRange, u32)> {
        let part = self.plan.scratch(binding, n);
        let part = part.ok_or_else(|| {
            Error::internal("binding gradients", format!("no {}", binding.name()))
        })?;
        let offset = self.scratch_offset + part.start;
        Ok((BoundRange { buffer: self.scratch.clone(), offset, size: part.bytes }, 0))
    }

    /// A tensor bound whole; something else where it has no elements.
    fn whole(
        &self,
        name: &str,
        view: BufferView<'a>,
        n: u64,
        bytes: u64,
    ) -> Result<(BoundRange, u32)> {
        if n == 0 {
            let range = BoundRange { buffer: self.engine.placeholder()?, offset: 0, size: 16 };
            return Ok((range, 0));
        }
        self.engine.bound_view(name, view, n, bytes)
    }
}

fn place_strides(params: &mut Params, binding: Binding, strides: Strides) {
    let [batch, head, row] = [strides.batch, strides.head, strides.row].map(|n| n as u32);
    match binding {
        Binding::Q => {
            (params.q_stride_batch, params.q_stride_head, params.q_stride_row) = (batch, head, row);
        }
        Binding::K => {
            (params.k_stride_batch, params.k_stride_head, params.k_stride_row) = (batch, head, row);
        }
        Binding::V => {
            (params.v_stride_batch, params.v_stride_head, params.v_stride_row) = (batch, head, row);
        }
        Binding::O => {
            (params.o_stride_batch, params.o_stride_head, params.o_stride_row) = (batch, head, row);
        }
        _ => {}
    }
}

/// One element at a time where a view starts between groups of four.
fn match_width(kernel: &mut KernelSpec, binding: Binding, view: BufferView<'_>, bytes: u64) {
    if !view.offset.is_multiple_of(4 * bytes) {
        for (of, element) in &mut kernel.elements {
            if *of == binding {
                *element = Element { width: Width::Single, ..*element };
            }
        }
    }
}
