//! Gradients on the GPU: their tensors, and from a plan to dispatches.

use std::fmt;
use std::ops::Range;

use crate::device;
use crate::engine::apart::{Extent, check_apart};
use crate::engine::backward_drafts::Drafting;
use crate::engine::backward_roles::Held;
use crate::engine::bound::{Recorded, Tables};
use crate::engine::dispatch::{self, Draft};
use crate::engine::parameters::problem_params;
use crate::engine::places::Places;
use crate::engine::{BufferView, Engine, Tensors};
use crate::error::{Error, Result};
use crate::plan::BackwardPlan;
use crate::problem::{BackwardProblem, Operand};

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
    /// Where each gradient that is wanted goes: those of q, k and v laid out as these and stored as these, or in f32 by
    /// [`Backward::in_f32`](crate::Backward::in_f32); others f32.
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

    pub(super) fn gradient(&self, operand: Operand) -> Option<BufferView<'a>> {
        self.gradients.iter().find(|(of, _)| *of == operand).map(|(_, view)| *view)
    }

    /// The tensors beside the call's own: name, view, bytes of an element, elements, whether written.
    fn others(&self, problem: &BackwardProblem) -> Result<Vec<Other<'a>>> {
        let call = problem.problem();
        let asked = problem.backward();
        let elements = |operand| call.elements(operand).unwrap_or(0);
        let bytes = |operand| problem.gradient_bits(operand) / 8;
        let mut all = vec![Other {
            name: "d_o",
            view: self.d_o,
            bytes: bytes(Operand::O),
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
            all.push(Other { name, view, bytes: bytes(operand), elements, written: true });
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
pub struct BoundBackward {
    recorded: Recorded,
    /// What steps leave to others beside the scratch.
    pub(super) held: Held,
}

impl BoundBackward {
    /// Records the gradients into the caller's encoder: one compute pass, no submit, no wait.
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        self.recorded.encode(encoder, None);
    }

    /// Records the gradients into a compute pass of the caller's, whose pipeline and bind group 0 they set.
    ///
    /// # Errors
    /// As [`Bound::encode_pass`](crate::Bound::encode_pass).
    pub fn encode_pass(&self, pass: &mut wgpu::ComputePass<'_>) -> Result<()> {
        self.recorded.encode_pass(pass)
    }

    /// Records the gradients as a compute pass that writes timestamps at its ends.
    pub fn encode_timed(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        timestamps: wgpu::ComputePassTimestampWrites<'_>,
    ) {
        self.recorded.encode(encoder, Some(timestamps));
    }

    /// Records some of the dispatches, for kernels that are judged by what these leave.
    pub(super) fn encode_part(&self, encoder: &mut wgpu::CommandEncoder, part: Range<usize>) {
        let all = self.recorded.dispatches.len();
        self.recorded.encode_part(encoder, part.start.min(all)..part.end.min(all));
    }

    /// Dispatches of one pass.
    pub fn dispatch_count(&self) -> usize {
        self.recorded.dispatches.len()
    }
}

/// What is recorded, a line for each dispatch.
impl fmt::Display for BoundBackward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        dispatch::show(&self.recorded.dispatches, f)
    }
}

impl Engine {
    /// Ties a backward plan to tensors. Gradients are written whole, or added to what is there by
    /// [`Backward::accumulate`](crate::Backward::accumulate); each shares no byte with anything else. Where the plan
    /// [reads](BackwardPlan::reads_outputs) o and lse, these must hold what this very call wrote.
    ///
    /// # Errors
    /// Invalid argument naming the tensor, out of memory, internal.
    pub fn bind_backward(
        &self,
        plan: &BackwardPlan,
        tensors: &BackwardTensors<'_>,
    ) -> Result<BoundBackward> {
        let (recorded, held) = self.backward_between(plan, tensors, Vec::new(), Vec::new())?;
        Ok(BoundBackward { recorded, held })
    }

    /// A backward plan's dispatches between others, and what its steps leave to others.
    pub(crate) fn backward_between(
        &self,
        plan: &BackwardPlan,
        tensors: &BackwardTensors<'_>,
        before: Vec<Draft>,
        after: Vec<Draft>,
    ) -> Result<(Recorded, Held)> {
        self.check_queue()?;
        let problem = plan.problem();
        let call = problem.problem();
        plan.check_kernels(&self.capabilities)?;
        tensors.forward.validate(call, plan.workspace_bytes())?;
        let others = tensors.others(problem)?;
        let mut extents = tensors.forward.extents(call, plan.workspace_bytes());
        // Of an o over q the rows of q are gone.
        extents.iter_mut().for_each(|extent| extent.over = None);
        check_apart(&extents)?;
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
        let bound = drafting
            .drafts()
            .and_then(|drafts| dispatch::bind(self, before.into_iter().chain(drafts).chain(after)));
        let dispatches = device::named(bound, &self.device, &buffers)?;
        let places = Places::new(self, &extents);
        let held = drafting.held();
        Ok((Recorded::of(dispatches, tables, aux, places), held))
    }
}
