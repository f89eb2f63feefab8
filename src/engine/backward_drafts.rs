//! From a backward plan and tensors to drafts of dispatches: what each step binds and goes over.

use crate::device;
use crate::engine::backward_roles::{Held, Role, Roles};
use crate::engine::dispatch::Draft;
use crate::engine::parameters::copy_params;
use crate::engine::range::BoundRange;
use crate::engine::{BackwardTensors, BufferView, Engine};
use crate::error::{Error, Result};
use crate::kernel::{
    Access, BATCH_N, Binding, CARRY_IN, CARRY_OUT, D_LSE_BASE, D_O_BASE, D_V_BASE, Element,
    KernelSpec, Params, SMALL_TABLES, TABLE_WIDTH, Width, Work,
};
use crate::plan::{BackwardPlan, BackwardStep, Block, Makes, Phase};
use crate::problem::{Operand, Problem};
use crate::tensor::Strides;

pub(super) struct Drafting<'a> {
    engine: &'a Engine,
    plan: &'a BackwardPlan,
    roles: Roles<'a>,
    base: Params,
    aux: &'a wgpu::Buffer,
    scratch: wgpu::Buffer,
    scratch_offset: u64,
}

impl<'a> Drafting<'a> {
    pub(super) fn new(
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
        let mut held = Vec::new();
        for step in &plan.steps {
            if let Some(bytes) = plan.held_bytes(step) {
                let bytes = bytes.next_multiple_of(16).max(16);
                // Read by the self-test.
                let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
                let buffer = device::create_buffer(&engine.device, "rows", bytes, usage)?;
                held.push((step.makes, buffer));
            }
        }
        let roles = Roles { plan, tensors, held };
        Ok(Self { engine, plan, roles, base, aux, scratch, scratch_offset })
    }

    /// What steps leave to others beside the scratch.
    pub(super) fn held(&self) -> Held {
        self.roles.held.clone()
    }

    /// Every dispatch in order: what comes before the blocks, block by block all that goes by blocks, then what goes
    /// over all rows.
    pub(super) fn drafts(&self) -> Result<Vec<Draft>> {
        let shape = self.call().attention().shape;
        let mut drafts = Vec::new();
        let whole = Block { batch: 0..shape.batch, heads: 0..shape.heads_q, rows: 0..shape.seq_q };
        let in_phase =
            |phase: Phase| self.plan.steps.iter().filter(move |step| step.makes.phase() == phase);
        for step in in_phase(Phase::Before) {
            drafts.push(self.draft(step, &whole)?);
        }
        let mut blocks: Vec<Block> = self.plan.blocks().collect();
        if blocks.is_empty() {
            // Without rows there is nothing to sum, and sums are 0.
            blocks.push(whole.clone());
        }
        for block in &blocks {
            for step in in_phase(Phase::Blocks) {
                drafts.push(self.draft(step, block)?);
            }
        }
        for step in in_phase(Phase::After) {
            drafts.push(self.draft(step, &whole)?);
        }
        let nothing = |draft: &Draft| draft.kernel.grid(&draft.work).contains(&0);
        drafts.retain(|draft| !nothing(draft));
        Ok(drafts)
    }

    fn call(&self) -> &'a Problem {
        self.roles.call()
    }

    /// The work of a step in a block, and the parameters that follow from both.
    fn work(&self, makes: Makes, block: &Block) -> (Work, Params) {
        let call = self.call();
        let s = call.attention().shape;
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
        match makes {
            Makes::Copy(of) | Makes::Unprepared(of) => return copy_params(call, of, &self.base),
            Makes::Turned => {
                let (work, params) = copy_params(call, Operand::Q, &self.base);
                return (work, Params { dim_qk: call.dim(Operand::Q), ..params });
            }
            Makes::Gradient(Operand::ScoreMatrix) => {
                (params.dim_v, params.dim_qk) = (s.dim_qk, call.dim(Operand::Q));
            }
            Makes::Incoming => params.dim_qk = s.dim_v,
            Makes::Gradient(Operand::K | Operand::Q) => params.dim_v = s.dim_qk,
            Makes::Products | Makes::Rows | Makes::Gradient(_) => {}
            Makes::Delta | Makes::OfRows | Makes::OfQueries | Makes::OfKeys => {}
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
        if makes == Makes::Gradient(Operand::ScoreMatrix) {
            (work.rows, work.columns) = (params.dim_v, params.dim_qk);
        }
        if let (Makes::Gradient(Operand::ScoreV), Some((_, sizes))) =
            (makes, self.roles.row_parts())
        {
            [work.batch, params.row_n, params.dim_v] = sizes;
            work.columns = params.dim_v;
        }
        (work, params)
    }

    fn draft(&self, step: &BackwardStep, block: &Block) -> Result<Draft> {
        let mut kernel = step.kernel.clone();
        let (mut work, mut params) = self.work(step.makes, block);
        let mut ranges = Vec::new();
        for Role { binding, name, view, strides, elements, bytes } in self.roles.of(step)? {
            let (range, base) = self.whole(name, view, elements, bytes)?;
            params = with_base(params, step.makes, binding, base);
            // In one pass gradients lie as what they are of, and o's strides are those of d_o.
            if !(in_one_pass(step.makes) && matches!(binding, Binding::O | Binding::DV)) {
                place_strides(&mut params, binding, strides);
            }
            if let (Makes::Gradient(Operand::K | Operand::V), Binding::O) = (step.makes, binding) {
                // Where a sequence starts among the keys.
                place_strides(&mut params, Binding::K, strides);
            }
            match_width(&mut kernel, binding, view, bytes);
            ranges.push((binding, range));
        }
        params = self.of_parts(step, block, &mut work, params);
        for bound in kernel.bindings() {
            let known = ranges.iter().any(|(binding, _)| *binding == bound.binding);
            if known || bound.binding == Binding::Params {
                continue;
            }
            let (range, base) = self.other(step.makes, bound.binding, bound.access)?;
            params = with_base(params, step.makes, bound.binding, base);
            ranges.push((bound.binding, range));
        }
        Ok(Draft::new(kernel, work, params, ranges))
    }

    /// The parameters with those of sums that come in parts.
    fn of_parts(
        &self,
        step: &BackwardStep,
        block: &Block,
        work: &mut Work,
        mut params: Params,
    ) -> Params {
        let call = self.call();
        let s = call.attention().shape;
        let [first, last] = [block.rows.start == 0, block.rows.end == s.seq_q];
        let adds = self.plan.problem().backward().accumulate;
        if step.kernel.writes.carry {
            params = params.with([CARRY_IN.is(u32::from(!first)), CARRY_OUT.is(u32::from(!last))]);
        }
        if step.makes == Makes::Gradient(Operand::Bias) {
            let (elements, later) = self.of_bias(block);
            work.elements = elements;
            params = params.with([CARRY_IN.is(u32::from(later || adds))]);
        }
        if step.makes == Makes::Gradient(Operand::Centers) {
            work.elements = call.elements(Operand::Centers).unwrap_or(0);
        }
        if step.makes == Makes::Gradient(Operand::EdgeBias) {
            work.elements = call.elements(Operand::EdgeBias).unwrap_or(0);
            let later = block.batch.start > 0 || block.heads.start > 0;
            params = params.with([CARRY_IN.is(u32::from(later || adds))]);
        }
        if let Makes::Gradient(operand @ (Operand::AlibiSlopes | Operand::Relative)) = step.makes {
            let elements = call.elements(operand).unwrap_or(0);
            let width = elements / u64::from(s.heads_q.max(1));
            work.elements = width;
            let later = block.batch.start > 0 || block.rows.start > 0;
            params =
                params.with([TABLE_WIDTH.is(width as u32), CARRY_IN.is(u32::from(later || adds))]);
        }
        params.with([BATCH_N.is(work.batch)])
    }

    /// Elements of the bias that a block touches, and whether an earlier block has touched them.
    fn of_bias(&self, block: &Block) -> (u64, bool) {
        let a = self.call().attention();
        let strides = a.bias.map(|bias| bias.strides()).unwrap_or_default();
        let axes = [&block.batch, &block.heads, &block.rows, &(0..a.shape.seq_kv)];
        let own = strides.iter().zip(axes).map(|(stride, axis)| match stride {
            0 => 1,
            _ => axis.len() as u64,
        });
        let later = strides.iter().zip(axes).any(|(stride, axis)| *stride == 0 && axis.start > 0);
        (own.product(), later)
    }

    /// Scratch, tables, masks, biases, and what comes in beside d_o.
    fn other(&self, makes: Makes, binding: Binding, access: Access) -> Result<(BoundRange, u32)> {
        let t = self.roles.tensors;
        let call = self.call();
        let view = |name, view: Option<BufferView<'a>>, operand| {
            let Some(view) = view else {
                return Err(Error::internal("binding gradients", format!("no {name}")));
            };
            let n = call.elements(operand).unwrap_or(0);
            match call.element_bits(operand) {
                // Counted in bits, as the mask's bytes are bound.
                1 => {
                    let (range, base) = self.whole(name, view, n.div_ceil(8), 1)?;
                    Ok((range, 8 * base))
                }
                bits => self.whole(name, view, n, bits / 8),
            }
        };
        match (binding, makes) {
            (Binding::Aux, _) => {
                let uniform = access == Access::Uniform;
                let size = if uniform { 4 * u64::from(SMALL_TABLES) } else { self.aux.size() };
                Ok((BoundRange { buffer: self.aux.clone(), offset: 0, size }, 0))
            }
            (Binding::Mask, _) => view("mask", t.forward.mask, Operand::Mask),
            (Binding::Bias, _) => view("bias", t.forward.bias, Operand::Bias),
            (Binding::Lse, _) => view("lse", t.forward.lse, Operand::Lse),
            (Binding::DLse, _) => view("d_lse", t.d_lse, Operand::Lse),
            (Binding::DWeights, _) => view("d_weights", t.d_weights, Operand::Weights),
            (Binding::DTable, Makes::Gradient(operand)) => {
                let name = operand.gradient_name();
                let Some(view) = t.gradient(operand) else {
                    return Err(Error::internal("binding gradients", format!("no {name}")));
                };
                self.whole(name, view, call.elements(operand).unwrap_or(0), 4)
            }
            // The second plane is where products of d_o and v go, and where gradients of products come from.
            (Binding::Scores, Makes::Incoming | Makes::Gradient(Operand::Q | Operand::K)) => {
                self.part(Binding::Grads, None)
            }
            (Binding::RowSums, Makes::Gradient(Operand::Q)) => {
                let held = self.roles.held(Makes::Gradient(Operand::ScoreV));
                let held =
                    held.ok_or_else(|| Error::internal("binding gradients", "no row_sums"))?;
                Ok((BoundRange::whole(held.buffer), 0))
            }
            (Binding::RowSums, Makes::Rows) => self.part(binding, Some(Operand::Sinks)),
            (Binding::RowSums, Makes::Unprepared(_)) => {
                self.part(binding, Some(Operand::HeadScale))
            }
            (Binding::RowSums | Binding::Carry, Makes::Gradient(of)) => {
                self.part(binding, Some(of))
            }
            (binding, _) => self.part(binding, None),
        }
    }

    fn part(&self, binding: Binding, of: Option<Operand>) -> Result<(BoundRange, u32)> {
        let part = self.plan.scratch(binding, of);
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
        view: BufferView<'_>,
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

fn in_one_pass(makes: Makes) -> bool {
    matches!(makes, Makes::OfRows | Makes::OfQueries | Makes::OfKeys)
}

/// The parameters with where a binding starts.
fn with_base(mut params: Params, makes: Makes, binding: Binding, base: u32) -> Params {
    match binding {
        Binding::DO => params.with([D_O_BASE.is(base)]),
        Binding::DV => params.with([D_V_BASE.is(base)]),
        // Beside lse itself.
        Binding::DLse if makes == Makes::Delta => params.with([D_LSE_BASE.is(base)]),
        _ => {
            params.base_mut(binding).into_iter().for_each(|place| *place = base);
            params
        }
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
        Binding::O | Binding::DO => {
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
