//! From a backward plan and tensors to drafts of dispatches: what each step binds and goes over.

use crate::device;
use crate::engine::dispatch::Draft;
use crate::engine::parameters::copy_params;
use crate::engine::range::BoundRange;
use crate::engine::{BackwardTensors, BufferView, Engine};
use crate::error::{Error, Result};
use crate::kernel::{
    Access, BATCH_N, Binding, CARRY_IN, CARRY_OUT, Element, KernelSpec, Params, SMALL_TABLES,
    TABLE_WIDTH, Width, Work,
};
use crate::plan::{BackwardPlan, BackwardStep, Block, Makes, Phase};
use crate::problem::{Operand, Problem};
use crate::tensor::{Layout, Strides};

pub(super) struct Drafting<'a> {
    engine: &'a Engine,
    plan: &'a BackwardPlan,
    tensors: &'a BackwardTensors<'a>,
    base: Params,
    aux: &'a wgpu::Buffer,
    scratch: wgpu::Buffer,
    scratch_offset: u64,
    /// What steps leave to others beside the scratch: copies of q and k, and their gradients.
    held: Vec<(Makes, wgpu::Buffer)>,
}

/// What stands for q, k, v or o in a dispatch, and how it lies.
struct Role<'a> {
    binding: Binding,
    name: &'static str,
    view: BufferView<'a>,
    strides: Strides,
    elements: u64,
    /// Of an element.
    bytes: u64,
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
            if let Some(bytes) = plan.held_bytes(step.makes) {
                let bytes = bytes.next_multiple_of(16).max(16);
                let usage = wgpu::BufferUsages::STORAGE;
                let buffer = device::create_buffer(&engine.device, "rows", bytes, usage)?;
                held.push((step.makes, buffer));
            }
        }
        Ok(Self { engine, plan, tensors, base, aux, scratch, scratch_offset, held })
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
        self.plan.problem().problem()
    }

    fn held(&self, makes: Makes) -> Option<BufferView<'_>> {
        self.held.iter().find(|(of, _)| *of == makes).map(|(_, buffer)| buffer.into())
    }

    /// A tensor of rows that lies as one of the caller's.
    fn like<'b>(
        &self,
        binding: Binding,
        name: &'static str,
        view: BufferView<'b>,
        operand: Operand,
    ) -> Role<'b> {
        let call = self.call();
        let elements = call.elements(operand).unwrap_or(0);
        let (strides, bytes) = (call.strides(operand), call.element_bits(operand) / 8);
        Role { binding, name, view, strides, elements, bytes }
    }

    /// f32 rows of q or k without gaps that a step leaves to others.
    fn rows<'b>(&self, binding: Binding, view: BufferView<'b>, of: Operand, dim: u32) -> Role<'b> {
        let call = self.call();
        let (heads, seq) = (call.heads(of), call.seq(of));
        let strides = Layout::Bhsd.strides(heads, seq, dim);
        let sizes = [call.attention().shape.batch, heads, seq, dim];
        let elements = sizes.map(u64::from).iter().product();
        Role { binding, name: of.name(), view, strides, elements, bytes: 4 }
    }

    /// q, k or v of the caller's.
    fn given(&self, binding: Binding, operand: Operand) -> Role<'a> {
        let t = &self.tensors.forward;
        let view = match operand {
            Operand::Q => t.q,
            Operand::K => t.k,
            _ => t.v,
        };
        self.like(binding, operand.name(), view, operand)
    }

    /// q or k as they meet: the copy where there is one.
    fn met(&self, binding: Binding, operand: Operand) -> Role<'_> {
        match self.held(Makes::Copy(operand)) {
            Some(view) => self.rows(binding, view, operand, self.call().attention().shape.dim_qk),
            None => self.given(binding, operand),
        }
    }

    /// The gradient of q, k or v as they meet.
    fn d_met(&self, binding: Binding, operand: Operand) -> Result<Role<'_>> {
        let held = self.held(Makes::Gradient(operand));
        match held.filter(|_| self.call().prepares(operand)) {
            Some(view) => {
                Ok(self.rows(binding, view, operand, self.call().attention().shape.dim_qk))
            }
            None => self.out(operand),
        }
    }

    /// Where the gradient of an operand goes; where nobody wants it, what is held for it.
    fn out(&self, operand: Operand) -> Result<Role<'_>> {
        let name = operand.gradient_name();
        let held = [Makes::Unprepared(operand), Makes::Gradient(operand)];
        let held = held.into_iter().find_map(|makes| self.held(makes));
        let view = self.tensors.gradient(operand).or(held);
        let view =
            view.ok_or_else(|| Error::internal("binding gradients", format!("no {name}")))?;
        Ok(self.like(Binding::O, name, view, operand))
    }

    /// Each row's part in the gradient of an additive score's weights, as rows whose columns are summed.
    fn row_parts(&self) -> Option<(Role<'_>, [u32; 3])> {
        let a = self.call().attention();
        let s = a.shape;
        let view = self.held(Makes::Gradient(Operand::ScoreV))?;
        let [batch, rows, columns] = match a.inner.is_per_head() {
            true => [s.batch, s.seq_q, s.heads_q * s.dim_qk],
            false => [1, s.batch * s.heads_q * s.seq_q, s.dim_qk],
        };
        let row = u64::from(columns);
        let strides = Strides { batch: u64::from(rows) * row, head: 0, row };
        let elements = u64::from(batch) * strides.batch;
        let name = "row_sums";
        let role = Role { binding: Binding::K, name, view, strides, elements, bytes: 4 };
        Some((role, [batch, rows, columns]))
    }

    /// What a step binds as q, k, v and o.
    fn roles(&self, makes: Makes) -> Result<Vec<Role<'_>>> {
        let dim_q = self.call().dim(Operand::Q);
        let d_o = |binding| self.like(binding, "d_o", self.tensors.d_o, Operand::O);
        let turned = |binding| {
            let view = self.held(Makes::Turned)?;
            Some(self.rows(binding, view, Operand::Q, dim_q))
        };
        Ok(match makes {
            Makes::Copy(of) => vec![self.given(Binding::Q, of), self.met(Binding::O, of)],
            Makes::Turned => {
                turned(Binding::O).into_iter().chain([self.given(Binding::Q, Operand::Q)]).collect()
            }
            Makes::Products => {
                vec![self.met(Binding::Q, Operand::Q), self.met(Binding::K, Operand::K)]
            }
            Makes::Incoming => vec![d_o(Binding::Q), self.given(Binding::K, Operand::V)],
            Makes::Gradient(Operand::V) => vec![d_o(Binding::Q), self.out(Operand::V)?],
            Makes::Gradient(of @ (Operand::K | Operand::Q))
                if self.call().attention().inner.is_sum() =>
            {
                let [q, k] = [(Binding::Q, Operand::Q), (Binding::K, Operand::K)]
                    .map(|(binding, operand)| self.met(binding, operand));
                vec![q, k, self.d_met(Binding::O, of)?]
            }
            Makes::Gradient(Operand::K) => {
                vec![self.met(Binding::Q, Operand::Q), self.d_met(Binding::O, Operand::K)?]
            }
            Makes::Gradient(Operand::ScoreV) => {
                self.row_parts().into_iter().map(|(role, _)| role).collect()
            }
            Makes::Gradient(Operand::Q) => {
                vec![self.met(Binding::V, Operand::K), self.d_met(Binding::O, Operand::Q)?]
            }
            Makes::Unprepared(of) => {
                vec![self.given(Binding::Q, of), self.d_met(Binding::K, of)?, self.out(of)?]
            }
            Makes::Gradient(Operand::ScoreMatrix) => {
                let x = turned(Binding::Q).unwrap_or_else(|| self.given(Binding::Q, Operand::Q));
                // Columns of the matrix meet the channels of k.
                let head = u64::from(self.call().attention().shape.dim_qk);
                let strides = Strides { batch: 0, head, row: 1 };
                let out = Role { strides, ..self.out(Operand::ScoreMatrix)? };
                vec![x, self.d_met(Binding::K, Operand::Q)?, out]
            }
            Makes::Rows | Makes::Gradient(_) => Vec::new(),
        })
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
        if let (Makes::Gradient(Operand::ScoreV), Some((_, sizes))) = (makes, self.row_parts()) {
            [work.batch, params.row_n, params.dim_v] = sizes;
            work.columns = params.dim_v;
        }
        (work, params)
    }

    fn draft(&self, step: &BackwardStep, block: &Block) -> Result<Draft> {
        let mut kernel = step.kernel.clone();
        let (mut work, mut params) = self.work(step.makes, block);
        let mut ranges = Vec::new();
        for Role { binding, name, view, strides, elements, bytes } in self.roles(step.makes)? {
            let (range, base) = self.whole(name, view, elements, bytes)?;
            params.base_mut(binding).into_iter().for_each(|place| *place = base);
            place_strides(&mut params, binding, strides);
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
            params.base_mut(bound.binding).into_iter().for_each(|place| *place = base);
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
        if step.kernel.writes.carry {
            params = params.with([CARRY_IN.is(u32::from(!first)), CARRY_OUT.is(u32::from(!last))]);
        }
        if step.makes == Makes::Gradient(Operand::Bias) {
            let (elements, later) = self.of_bias(block);
            work.elements = elements;
            params = params.with([CARRY_IN.is(u32::from(later))]);
        }
        if step.makes == Makes::Gradient(Operand::Centers) {
            work.elements = call.elements(Operand::Centers).unwrap_or(0);
        }
        if step.makes == Makes::Gradient(Operand::EdgeBias) {
            work.elements = call.elements(Operand::EdgeBias).unwrap_or(0);
            let later = block.batch.start > 0 || block.heads.start > 0;
            params = params.with([CARRY_IN.is(u32::from(later))]);
        }
        if let Makes::Gradient(operand @ (Operand::AlibiSlopes | Operand::Relative)) = step.makes {
            let elements = call.elements(operand).unwrap_or(0);
            let width = elements / u64::from(s.heads_q.max(1));
            work.elements = width;
            let later = block.batch.start > 0 || block.rows.start > 0;
            params = params.with([TABLE_WIDTH.is(width as u32), CARRY_IN.is(u32::from(later))]);
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
        let t = self.tensors;
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
                let held = self.held(Makes::Gradient(Operand::ScoreV));
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
