//! `Bound`: a plan tied to tensors, ready to be recorded.

use std::fmt;
use std::ops::Range;

use crate::device;
use crate::engine::dispatch::{self, Dispatch, Draft, Prepared};
use crate::engine::encode::Encoding;
use crate::engine::places::Places;
use crate::engine::{Engine, Table, Tensors};
use crate::error::{Error, Result};
use crate::kernel::{KernelSpec, Params, SMALL_TABLES};
use crate::plan::Plan;
use crate::problem::{Operand, Problem};

/// What is copied from the caller's buffer into one of the engine's at every run.
#[derive(Debug)]
pub(crate) struct Copied {
    pub(crate) name: &'static str,
    pub(crate) source: wgpu::Buffer,
    pub(crate) source_offset: u64,
    /// `None` is the table buffer.
    pub(crate) target: Option<wgpu::Buffer>,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

/// Dispatches with the tables they read, ready to be recorded.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) dispatches: Vec<Dispatch>,
    pub(crate) copies: Vec<Copied>,
    pub(crate) aux: wgpu::Buffer,
    /// Where in `aux` the block table is that the dispatches fill, bytes.
    pub(crate) block_offset: u64,
    /// Copies of q and k that the first dispatches write.
    pub(crate) prepared: Prepared,
    /// Where its tensors are.
    pub(crate) places: Places,
}

impl Recorded {
    pub(crate) fn new(engine: &Engine, plan: &Plan, tensors: &Tensors<'_>) -> Result<Self> {
        Self::between(engine, plan, tensors, Vec::new(), Vec::new())
    }

    /// A plan's dispatches between others.
    pub(crate) fn between(
        engine: &Engine,
        plan: &Plan,
        tensors: &Tensors<'_>,
        before: Vec<Draft>,
        after: Vec<Draft>,
    ) -> Result<Self> {
        let problem = plan.problem();
        plan.check_kernels(&engine.capabilities)?;
        tensors.validate(problem, plan.workspace_bytes())?;
        let mut tables = Tables::new(problem, tensors, plan.block_words());
        let aux = tables.upload(engine, problem, &plan.kernels())?;
        let encoding = Encoding::new(engine, plan, tensors, &tables.base, &aux)?;
        let extents = tensors.extents(problem, plan.workspace_bytes());
        let buffers: Vec<_> = extents.iter().map(|x| (x.name, x.view.buffer)).collect();
        let bound = encoding.drafts().and_then(|(drafts, prepared)| {
            let drafts = before.into_iter().chain(drafts).chain(after);
            Ok((dispatch::bind(engine, drafts)?, prepared))
        });
        let (dispatches, prepared) = device::named(bound, &engine.device, &buffers)?;
        let places = Places::new(engine, &extents);
        let Tables { copies, block_offset, .. } = tables;
        Ok(Self { dispatches, copies, aux, block_offset, prepared, places })
    }

    /// Dispatches that read no tables.
    pub(crate) fn drafts(engine: &Engine, drafts: Vec<Draft>) -> Result<Self> {
        Ok(Self {
            dispatches: dispatch::bind(engine, drafts)?,
            copies: Vec::new(),
            aux: engine.placeholder()?,
            block_offset: 0,
            prepared: Vec::new(),
            places: Places::new(engine, &[]),
        })
    }

    /// Dispatches with the tables that they read.
    pub(super) fn of(
        dispatches: Vec<Dispatch>,
        tables: Tables,
        aux: wgpu::Buffer,
        places: Places,
    ) -> Self {
        let Tables { copies, block_offset, .. } = tables;
        Self { dispatches, copies, aux, block_offset, prepared: Vec::new(), places }
    }

    pub(crate) fn encode(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        timestamp_writes: Option<wgpu::ComputePassTimestampWrites<'_>>,
    ) {
        self.copy_tables(encoder);
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: Some("attention"),
            timestamp_writes,
        });
        self.record(&mut pass);
    }

    fn record(&self, pass: &mut wgpu::ComputePass<'_>) {
        for dispatch in &self.dispatches {
            dispatch.record(pass);
        }
    }

    /// Records some of the dispatches, for kernels that are tried by themselves.
    pub(super) fn encode_part(&self, encoder: &mut wgpu::CommandEncoder, part: Range<usize>) {
        self.copy_tables(encoder);
        let mut pass = encoder.begin_compute_pass(&Default::default());
        for dispatch in self.dispatches.get(part).unwrap_or_default() {
            dispatch.record(&mut pass);
        }
    }

    fn copy_tables(&self, encoder: &mut wgpu::CommandEncoder) {
        for copy in &self.copies {
            let (source, start) = (&copy.source, copy.source_offset);
            let target = copy.target.as_ref().unwrap_or(&self.aux);
            encoder.copy_buffer_to_buffer(source, start, target, copy.offset, copy.bytes);
        }
    }

    /// Records into a pass that is open, in which nothing can be copied.
    pub(crate) fn encode_pass(&self, pass: &mut wgpu::ComputePass<'_>) -> Result<()> {
        let mut copied: Vec<&str> = self.copies.iter().map(|copy| copy.name).collect();
        copied.dedup();
        if !copied.is_empty() {
            let found = "on the GPU, copied at every run, which a pass cannot do";
            let wanted = "tables from the host, or `encode` into an encoder";
            return Err(Error::invalid(copied.join(", "), found, wanted));
        }
        self.record(pass);
        Ok(())
    }
}

/// What is recorded: tables that are copied, then the dispatches, a line each.
impl fmt::Display for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Copied { name, bytes, .. } in &self.copies {
            writeln!(f, "copy of {name}, {bytes} B")?;
        }
        dispatch::show(&self.dispatches, f)
    }
}

/// Checks that what is copied at every run lies on the engine's device.
pub(crate) fn check_copies(device: &wgpu::Device, copies: &[Copied]) -> Result<()> {
    let sources: Vec<_> = copies.iter().map(|copy| (copy.name, &copy.source)).collect();
    device::check_sources(device, &sources)
}

/// A plan tied to the caller's tensors.
///
/// It holds handles to the buffers, so they stay alive; their contents may change between runs.
/// Recording it allocates nothing.
#[derive(Debug)]
pub struct Bound(pub(super) Recorded);

impl Bound {
    pub(super) fn recorded(&mut self) -> &mut Recorded {
        &mut self.0
    }

    pub(crate) fn new(engine: &Engine, plan: &Plan, tensors: &Tensors<'_>) -> Result<Self> {
        Ok(Self(Recorded::new(engine, plan, tensors)?))
    }

    /// Records the call into the caller's encoder: one compute pass, no submit, no wait.
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        self.0.encode(encoder, None);
    }

    /// Records the call into a compute pass of the caller's, behind what is there already. The pass's
    /// pipeline and its bind group 0 are those of the last dispatch afterwards; other groups stay as they
    /// are, and count for nothing here.
    ///
    /// # Errors
    /// Invalid argument naming the tables that live on the GPU: they are copied at every run,
    /// which needs an encoder. Nothing was recorded then.
    pub fn encode_pass(&self, pass: &mut wgpu::ComputePass<'_>) -> Result<()> {
        self.0.encode_pass(pass)
    }

    /// Records the call as a compute pass that writes timestamps at its ends.
    pub fn encode_timed(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        timestamps: wgpu::ComputePassTimestampWrites<'_>,
    ) {
        self.0.encode(encoder, Some(timestamps));
    }

    /// Dispatches of one run.
    pub fn dispatch_count(&self) -> usize {
        self.0.dispatches.len()
    }
}

/// What is recorded, a line for each dispatch: its kernel, its workgroups, and the bytes of each buffer that it
/// binds.
impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The small tables of a call, one after another in one buffer of words.
pub(super) struct Tables {
    pub(super) bytes: Vec<u8>,
    copies: Vec<Copied>,
    pub(super) base: Params,
    /// Where the table is that a dispatch of the call fills, bytes.
    block_offset: u64,
}

impl Tables {
    pub(super) fn new(problem: &Problem, tensors: &Tensors<'_>, block_words: u64) -> Self {
        let mut tables = Self {
            bytes: Vec::new(),
            copies: Vec::new(),
            base: Params::default(),
            block_offset: 0,
        };
        let ids = [tensors.positions, tensors.key_positions].map(|table| match table {
            Some(Table::U32(ids)) => Some(ids),
            _ => None,
        });
        let rows = problem.rotary_rows(ids);
        let half = problem.attention().rotary.map_or(0, |rotary| u64::from(rotary.dim / 2));
        let angles = u64::from(rows.start) * half..u64::from(rows.end) * half;
        for &operand in Operand::TABLES {
            let Some(table) = tensors.table(operand) else { continue };
            let n = problem.elements(operand).unwrap_or(0);
            let turns = matches!(operand, Operand::RotaryCos | Operand::RotarySin);
            tables.push(operand, table, if turns { angles.clone() } else { 0..n });
        }
        // A table that a dispatch of the call fills comes last.
        if block_words > 0 {
            tables.block_offset = tables.bytes.len() as u64;
            let word = (tables.bytes.len() / 4) as u32;
            tables.base = tables.base.with_table(Operand::Blocks, word);
            tables.bytes.resize(tables.bytes.len() + 4 * block_words as usize, 0);
        }
        tables
    }

    /// The buffer that the kernels read tables from.
    pub(super) fn upload(
        &mut self,
        engine: &Engine,
        problem: &Problem,
        kernels: &[&KernelSpec],
    ) -> Result<wgpu::Buffer> {
        let caps = &engine.capabilities;
        let limit = caps.max_binding_bytes.min(caps.max_buffer_bytes);
        let bytes = self.bytes.len() as u64;
        if bytes > limit {
            let name =
                if problem.attention().rotary.is_some() { "rotary tables" } else { "tables" };
            let wanted = format!("at most {limit} B, one binding of this device, with all tables");
            return Err(Error::invalid(name, format!("{bytes} B"), wanted));
        }
        let mut usage = wgpu::BufferUsages::STORAGE
            | wgpu::BufferUsages::COPY_DST
            | wgpu::BufferUsages::COPY_SRC;
        if kernels.iter().any(|spec| spec.build.small_tables) {
            usage |= wgpu::BufferUsages::UNIFORM;
            self.bytes.resize(4 * SMALL_TABLES as usize, 0);
        }
        let aux = device::upload(&engine.device, "attention tables", &self.bytes, usage)?;
        check_copies(&engine.device, &self.copies)?;
        Ok(aux)
    }

    /// Appends the elements `part` of a table. Kernels count elements from the table's first, modulo 2³².
    fn push(&mut self, operand: Operand, table: Table<'_>, part: Range<u64>) {
        let start = self.bytes.len();
        let word = ((start / 4) as u32).wrapping_sub(part.start as u32);
        let n = part.end - part.start;
        let own = part.start as usize..part.end as usize;
        self.base = self.base.with_table(operand, word);
        match table {
            Table::F32(x) => self.bytes.extend_from_slice(bytemuck::cast_slice(&x[own])),
            Table::U32(x) => self.bytes.extend_from_slice(bytemuck::cast_slice(&x[own])),
            Table::I32(x) => self.bytes.extend_from_slice(bytemuck::cast_slice(&x[own])),
            Table::Buffer(view) => {
                self.bytes.resize(start + n as usize * 4, 0);
                self.copies.push(Copied {
                    name: operand.name(),
                    target: None,
                    source: view.buffer.clone(),
                    source_offset: view.offset + part.start * 4,
                    offset: start as u64,
                    bytes: n * 4,
                });
            }
        }
        self.copies.retain(|copy| copy.bytes > 0);
    }
}
