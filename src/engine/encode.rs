//! From a plan and tensors to drafts of dispatches: work, parameters, and what of each tensor is bound.
//!
//! Every dispatch binds only the range of each tensor that its block touches, so no binding passes
//! the device's limit however long the tensors are. A range starts at an aligned offset; what lies
//! between that and the block's first element, and the block's origin, go into the operand's base.

use std::ops::Range;

use crate::device;
use crate::engine::dispatch::{Draft, Prepared};
use crate::engine::parameters::{base_params, copy_params};
use crate::engine::range::{BoundRange, bind_range, touched};
use crate::engine::{Engine, Tensors};
use crate::error::Result;
use crate::kernel::{
    Access, Binding, CARRY_IN, CARRY_OUT, Element, Kernel, KernelSpec, Params, SMALL_TABLES, Width,
    Work,
};
use crate::plan::{Block, Over, Plan, Step};
use crate::problem::{Operand, Problem};

pub(crate) struct Encoding<'a> {
    engine: &'a Engine,
    plan: &'a Plan,
    tensors: &'a Tensors<'a>,
    base: Params,
    aux: &'a wgpu::Buffer,
    scratch: wgpu::Buffer,
    scratch_offset: u64,
    steps: Vec<Step>,
    /// Copies of q and k that the first dispatches write.
    prepared: Prepared,
    drafts: Vec<Draft>,
}

impl<'a> Encoding<'a> {
    pub(crate) fn new(
        engine: &'a Engine,
        plan: &'a Plan,
        tensors: &'a Tensors<'a>,
        tables: &Params,
        aux: &'a wgpu::Buffer,
    ) -> Result<Self> {
        let (scratch, scratch_offset) = match (tensors.workspace, plan.workspace_bytes()) {
            (_, 0) => (aux.clone(), 0),
            (Some(view), _) => (view.buffer.clone(), view.offset),
            (None, bytes) => (engine.scratch(bytes)?, 0),
        };
        let fitted = |step: &Step| Step {
            kernel: match step.over {
                // They read one element at a time.
                Over::Copy { .. } => step.kernel.clone(),
                _ => widths_for(&step.kernel, plan.problem(), tensors),
            },
            ..*step
        };
        let steps = plan.steps().map(fitted).collect();
        let base = base_params(plan, tables);
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
        let copy = |step: &Step| {
            let Over::Copy { operand, bytes } = step.over else { return None };
            let bytes = bytes.next_multiple_of(16).max(16);
            let buffer = device::create_buffer(&engine.device, "prepared rows", bytes, usage);
            Some(buffer.map(|buffer| (operand, buffer)))
        };
        let prepared = plan.steps().filter_map(copy).collect::<Result<_>>()?;
        Ok(Self {
            engine,
            plan,
            tensors,
            base,
            aux,
            scratch,
            scratch_offset,
            steps,
            prepared,
            drafts: Vec::new(),
        })
    }

    /// Every dispatch of the plan, in order, and the copies that the first of them write.
    pub(crate) fn drafts(mut self) -> Result<(Vec<Draft>, Prepared)> {
        let plan = self.plan;
        let size = plan.block();
        let all_keys = 0..plan.problem().attention().shape.seq_kv;
        let steps = std::mem::take(&mut self.steps);
        let by_ranges = steps.iter().any(|step| step.over == Over::KeyRanges);
        let key_ranges = if by_ranges { size.key_steps(plan.problem()) } else { Vec::new() };
        for step in &steps {
            if let Over::Copy { operand, .. } = step.over {
                self.draft_copy(&step.kernel, operand)?;
            }
        }
        // Without other steps there is nothing to do block by block.
        let by_blocks = steps.iter().any(|step| !matches!(step.over, Over::Copy { .. }));
        let blocks = by_blocks.then(|| size.blocks(plan.problem()));
        for block in blocks.into_iter().flatten() {
            for Step { kernel, over } in &steps {
                match over {
                    Over::Copy { .. } => {}
                    Over::Table => self.draft_table(kernel, &block)?,
                    Over::Block => self.draft(kernel, &block, all_keys.clone(), [false; 2])?,
                    Over::Rows => self.draft(kernel, &block, 0..0, [false; 2])?,
                    Over::KeyRanges => {
                        for (i, keys) in key_ranges.iter().enumerate() {
                            let carry = [i > 0, i + 1 < key_ranges.len()];
                            self.draft(kernel, &block, keys.clone(), carry)?;
                        }
                    }
                }
            }
        }
        Ok((self.drafts, self.prepared))
    }

    /// Builds the block table of a block's rows; where one table serves all sequences or heads, the first
    /// block has built it already.
    fn draft_table(&mut self, kernel: &KernelSpec, block: &Block) -> Result<()> {
        let Some((blocks, _)) = self.plan.blocks() else { return Ok(()) };
        let served = |n: u32, range: &Range<u32>| n == 1 && range.start > 0;
        if served(blocks.batch, &block.batch) || served(blocks.heads, &block.heads) {
            return Ok(());
        }
        let all_keys = 0..self.plan.problem().attention().shape.seq_kv;
        self.draft(kernel, block, all_keys, [false; 2])
    }

    /// Writes the f32 copy of q or k.
    fn draft_copy(&mut self, kernel: &KernelSpec, operand: Operand) -> Result<()> {
        let problem = self.plan.problem();
        let (work, params) = copy_params(problem, operand, &self.base);
        let empty = kernel.grid(&work).contains(&0);
        let copy = self.prepared.iter().find(|(of, _)| *of == operand);
        let (Some((_, copy)), Some(view), false) = (copy, self.tensors.view(operand), empty) else {
            return Ok(());
        };
        let elements = problem.elements(operand).unwrap_or(0);
        let bits = problem.storage(operand).unit_bits();
        let alignment = self.engine.capabilities.storage_alignment;
        let (source, q_base) = bind_range(view, 0..elements, bits, alignment)?;
        let params = Params { q_base, ..params };
        let output = BoundRange { buffer: copy.clone(), offset: 0, size: copy.size() };
        let mut ranges = vec![(Binding::Q, source), (Binding::O, output)];
        if kernel.needs_aux() {
            let tables = self.fixed_range(Binding::Aux, Access::Read);
            ranges.extend(tables.map(|range| (Binding::Aux, range)));
        }
        let views = vec![(Binding::Q, operand)];
        self.drafts.push(Draft { kernel: kernel.clone(), work, params, ranges, views });
        Ok(())
    }

    fn draft(
        &mut self,
        spec: &KernelSpec,
        block: &Block,
        keys: Range<u32>,
        carry: [bool; 2],
    ) -> Result<()> {
        let s = self.plan.problem().attention().shape;
        let work = self.work(spec, block, &keys);
        if spec.grid(&work).contains(&0) {
            return Ok(());
        }
        let per_head = if spec.kernel.twin().by_group { s.group() } else { 1 };
        let [head0, head_n] = [block.heads.start, work.heads].map(|n| n / per_head);
        let mut params = Params {
            batch0: block.batch.start,
            head0,
            head_n,
            row0: block.rows.start,
            row_n: work.rows,
            key0: keys.start,
            key_n: keys.len() as u32,
            ..self.base
        };
        if carry != [false; 2] {
            params =
                params.with([CARRY_IN.is(u32::from(carry[0])), CARRY_OUT.is(u32::from(carry[1]))]);
        }
        let mut ranges = Vec::new();
        for bound in spec.bindings() {
            let range = match bound.binding.operand() {
                Some(operand) => {
                    let (range, base) = self.operand_range(operand, bound.access, block, &keys)?;
                    params.base_mut(bound.binding).into_iter().for_each(|place| *place = base);
                    range
                }
                None => match self.fixed_range(bound.binding, bound.access) {
                    Some(range) => range,
                    None => continue,
                },
            };
            ranges.push((bound.binding, range));
        }
        // Neither copies nor what stands in for a tensor without elements.
        let held = |(binding, range): &(Binding, BoundRange)| {
            let operand = binding.operand()?;
            let prepared = self.prepared.iter().any(|(of, _)| *of == operand);
            let view = self.tensors.view(operand)?;
            (!prepared && *view.buffer == range.buffer).then_some((*binding, operand))
        };
        let views = ranges.iter().filter_map(held).collect();
        self.drafts.push(Draft { kernel: spec.clone(), work, params, ranges, views });
        Ok(())
    }

    /// Block tables that a block of the call touches, along batch and heads.
    fn tables_of(&self, block: &Block) -> [u32; 2] {
        let own = |n: u32, range: &Range<u32>| if n == 1 { 1 } else { range.len() as u32 };
        self.plan.blocks().map_or([0; 2], |(blocks, _)| {
            [own(blocks.batch, &block.batch), own(blocks.heads, &block.heads)]
        })
    }

    /// What a kernel does of a block.
    fn work(&self, spec: &KernelSpec, block: &Block, keys: &Range<u32>) -> Work {
        let s = self.plan.problem().attention().shape;
        let [batch, heads] = match spec.kernel {
            Kernel::Classify => self.tables_of(block),
            _ => [block.batch.len() as u32, block.heads.len() as u32],
        };
        Work {
            batch,
            heads,
            group: s.group(),
            rows: block.rows.len() as u32,
            keys: keys.len() as u32,
            columns: s.dim_v,
            elements: 0,
            shares: self.plan.shares().map_or(1, |shares| shares.n),
            blocks: self.plan.blocks().map(|(blocks, _)| blocks),
        }
    }

    /// Scratch and tables: the same range for every block. The parameter block has none yet.
    fn fixed_range(&self, binding: Binding, access: Access) -> Option<BoundRange> {
        if binding == Binding::Aux {
            let buffer = self.aux.clone();
            let uniform = access == Access::Uniform;
            let size = if uniform { 4 * u64::from(SMALL_TABLES) } else { buffer.size() };
            return Some(BoundRange { buffer, offset: 0, size });
        }
        let part = self.plan.scratch(binding)?;
        let (offset, size) = (self.scratch_offset + part.start, part.bytes);
        Some(BoundRange { buffer: self.scratch.clone(), offset, size })
    }

    /// The range of a tensor that a block touches, and the operand's base parameter.
    fn operand_range(
        &self,
        operand: Operand,
        access: Access,
        block: &Block,
        keys: &Range<u32>,
    ) -> Result<(BoundRange, u32)> {
        let elements = touched(self.plan.problem(), operand, block, keys);
        let copy = self.prepared.iter().find(|(of, _)| *of == operand);
        let view = match copy {
            Some((_, buffer)) => Some(buffer.into()),
            None => self.tensors.view(operand),
        };
        let (Some(view), false) = (view, elements.is_empty()) else {
            // Nothing is read or written, but something must be bound.
            let buffer = match access {
                Access::Uniform | Access::Read => self.aux.clone(),
                Access::ReadWrite => self.engine.placeholder()?,
            };
            return Ok((BoundRange { buffer, offset: 0, size: 16 }, 0));
        };
        let problem = self.plan.problem();
        let bits = match operand.rows() {
            Some(_) => problem.read_storage(operand).unit_bits(),
            None => problem.element_bits(operand),
        };
        bind_range(view, elements, bits, self.engine.capabilities.storage_alignment)
    }
}

/// The plan's variant, reading one element at a time those operands whose view starts between
/// groups of four.
fn widths_for(spec: &KernelSpec, problem: &Problem, tensors: &Tensors<'_>) -> KernelSpec {
    let mut spec = spec.clone();
    for (binding, element) in &mut spec.elements {
        let operand = binding.operand();
        let misplaced = operand.is_some_and(|operand| {
            if problem.prepares(operand) {
                return false;
            }
            if element.is_quantised() {
                return false;
            }
            let four = problem.element_bits(operand) / 2;
            tensors.view(operand).is_some_and(|view| !view.offset.is_multiple_of(four))
        });
        if misplaced {
            *element = Element { width: Width::Single, ..*element };
        }
    }
    spec
}
