//! `Bound`: a plan tied to tensors, ready to be recorded.

use std::sync::Arc;

use crate::device::{self, Pipeline};
use crate::engine::encode::Encoding;
use crate::engine::tensors::ALL_TABLES;
use crate::engine::{Engine, Table, Tensors};
use crate::error::Result;
use crate::kernel::Params;
use crate::plan::Plan;
use crate::problem::{Operand, Problem};

/// One dispatch: pipeline, resources, grid.
#[derive(Debug)]
pub(crate) struct Dispatch {
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) group: wgpu::BindGroup,
    pub(crate) grid: [u32; 3],
}

/// A table that is copied from the caller's buffer into the table buffer at every run.
#[derive(Debug)]
struct TableCopy {
    source: wgpu::Buffer,
    source_offset: u64,
    offset: u64,
    bytes: u64,
}

/// A plan tied to the caller's tensors.
///
/// It holds handles to the buffers, so they stay alive; their contents may change between runs.
/// Recording it allocates nothing.
#[derive(Debug)]
pub struct Bound {
    dispatches: Vec<Dispatch>,
    copies: Vec<TableCopy>,
    aux: wgpu::Buffer,
}

impl Bound {
    pub(crate) fn new(engine: &Engine, plan: &Plan, tensors: &Tensors<'_>) -> Result<Self> {
        let problem = plan.problem();
        tensors.validate(problem, plan.workspace_bytes())?;
        let tables = Tables::new(problem, tensors);
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
        let aux = device::upload(&engine.device, "attention tables", &tables.bytes, usage)?;
        let dispatches = Encoding::new(engine, plan, tensors, &tables.base, &aux)?.dispatches()?;
        Ok(Self { dispatches, copies: tables.copies, aux })
    }

    /// Records the call into the caller's encoder: one compute pass, no submit, no wait.
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        self.copy_tables(encoder);
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: Some("attention"),
            timestamp_writes: None,
        });
        self.dispatch(&mut pass);
    }

    /// Records the call as a compute pass that writes timestamps at its ends.
    pub fn encode_timed(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        timestamps: wgpu::ComputePassTimestampWrites<'_>,
    ) {
        self.copy_tables(encoder);
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: Some("attention"),
            timestamp_writes: Some(timestamps),
        });
        self.dispatch(&mut pass);
    }

    /// Dispatches of one run.
    pub fn dispatch_count(&self) -> usize {
        self.dispatches.len()
    }

    fn copy_tables(&self, encoder: &mut wgpu::CommandEncoder) {
        for copy in &self.copies {
            let bytes = copy.bytes;
            encoder.copy_buffer_to_buffer(
                &copy.source,
                copy.source_offset,
                &self.aux,
                copy.offset,
                bytes,
            );
        }
    }

    fn dispatch(&self, pass: &mut wgpu::ComputePass<'_>) {
        for Dispatch { pipeline, group, grid: [x, y, z] } in &self.dispatches {
            pass.set_pipeline(&pipeline.pipeline);
            pass.set_bind_group(0, group, &[]);
            pass.dispatch_workgroups(*x, *y, *z);
        }
    }
}

/// The small tables of a call, one after another in one buffer of words.
struct Tables {
    bytes: Vec<u8>,
    copies: Vec<TableCopy>,
    base: Params,
}

impl Tables {
    fn new(problem: &Problem, tensors: &Tensors<'_>) -> Self {
        let mut tables = Self { bytes: Vec::new(), copies: Vec::new(), base: Params::default() };
        let operands = problem.operands();
        for operand in ALL_TABLES {
            let Some(table) = tensors.table(operand) else { continue };
            let n = operands.iter().find(|(o, _)| *o == operand).map_or(0, |(_, n)| *n);
            tables.push(operand, table, n);
        }
        tables
    }

    fn push(&mut self, operand: Operand, table: Table<'_>, n: u64) {
        let start = self.bytes.len();
        let word = (start / 4) as u32;
        match operand {
            Operand::AlibiSlopes => self.base.aux_alibi_slopes = word,
            Operand::Sinks => self.base.aux_sinks = word,
            Operand::KvLengths => self.base.aux_kv_lengths = word,
            Operand::QLengths => self.base.aux_q_lengths = word,
            Operand::Offsets => self.base.aux_offsets = word,
            Operand::CuSeqlensQ => self.base.aux_cu_seqlens_q = word,
            Operand::CuSeqlensKv => self.base.aux_cu_seqlens_kv = word,
            _ => self.base.aux_table = word,
        }
        match table {
            Table::F32(values) => self.bytes.extend_from_slice(bytemuck::cast_slice(values)),
            Table::U32(values) => self.bytes.extend_from_slice(bytemuck::cast_slice(values)),
            Table::I32(values) => self.bytes.extend_from_slice(bytemuck::cast_slice(values)),
            Table::Buffer(view) => {
                self.bytes.resize(start + n as usize * 4, 0);
                self.copies.push(TableCopy {
                    source: view.buffer.clone(),
                    source_offset: view.offset,
                    offset: start as u64,
                    bytes: n * 4,
                });
            }
        }
        self.copies.retain(|copy| copy.bytes > 0);
    }
}
