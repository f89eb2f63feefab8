//! Running a call on a GPU so that nothing wrong can hide.
//!
//! Outputs and scratch are filled with a NaN pattern first, so what a kernel leaves unwritten shows.
//! Guard words stand around every tensor: inputs lie in NaN, and every byte around and between the
//! elements of an output must still hold the pattern afterwards. Each call runs twice and must give
//! the same bits.

use std::ops::Range;
use std::time::Instant;

use crate::device::Readback;
use crate::engine::{BufferView, Engine, HostTables, Tensors, offset_alignment, stored};
use crate::error::{Error, Result};
use crate::feature::Operands;
use crate::plan::Plan;
use crate::problem::{Operand, Problem};
use crate::reference::{Inputs, Outputs};
use crate::tensor::DType;

/// NaN as f32, and both halves NaN as f16 and as bf16.
const POISON: [u8; 4] = 0x7fff_ffff_u32.to_le_bytes();

/// Bytes before and after every tensor: at least the strictest offset alignment.
const GUARD: u64 = 256;

/// Where tensors start in their buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Placement {
    /// At multiples of 256 bytes: kernels read four elements at a time.
    Aligned,
    /// One element later: kernels read one element at a time, and bases do not vanish.
    Odd,
}

/// What a run gave.
#[derive(Debug, Clone)]
pub struct Execution {
    /// The outputs, gapless.
    pub outputs: Outputs,
    /// First output written outside its elements, with the byte offset; `None` when none was.
    pub stray_write: Option<String>,
    /// Whether the second run gave the same bits.
    pub repeatable: bool,
    /// Wall time of the second run with its readback, milliseconds.
    pub milliseconds: f64,
}

struct Output {
    operand: Operand,
    buffer: wgpu::Buffer,
    offset: u64,
}

/// Runs a planned call twice on poisoned, guarded tensors.
///
/// # Errors
/// Invalid argument when inputs do not fit the problem, out of memory, device lost, internal.
pub fn execute(
    engine: &Engine,
    plan: &Plan,
    inputs: &Inputs<'_>,
    placement: Placement,
) -> Result<Execution> {
    let problem = plan.problem();
    inputs.validate(problem)?;
    let held = Held::new(engine, plan, inputs, placement)?;
    let tables = HostTables::new(problem, &inputs.operands);
    let mut tensors = held.tensors();
    tables.set(&mut tensors);
    let bound = engine.bind(plan, &tensors)?;
    let run = || -> Result<Vec<Vec<u8>>> {
        let mut encoder = engine.device().create_command_encoder(&Default::default());
        for output in &held.outputs {
            held.poison(&mut encoder, &output.buffer);
        }
        held.poison(&mut encoder, &held.workspace);
        bound.encode(&mut encoder);
        let readbacks: Result<Vec<Readback>> = held
            .outputs
            .iter()
            .map(|x| Readback::record(engine.device(), &mut encoder, &x.buffer, 0, x.buffer.size()))
            .collect();
        engine.queue().submit([encoder.finish()]);
        readbacks?.into_iter().map(Readback::read_blocking).collect()
    };
    let first = run()?;
    let start = Instant::now();
    let second = run()?;
    let milliseconds = start.elapsed().as_secs_f64() * 1e3;
    let (outputs, stray_write) = held.collect(problem, &inputs.operands, &first);
    Ok(Execution { outputs, stray_write, repeatable: first == second, milliseconds })
}

/// The buffers of a run.
struct Held {
    inputs: Vec<(Operand, wgpu::Buffer, u64)>,
    outputs: Vec<Output>,
    workspace: wgpu::Buffer,
    poison: wgpu::Buffer,
}

impl Held {
    fn new(
        engine: &Engine,
        plan: &Plan,
        inputs: &Inputs<'_>,
        placement: Placement,
    ) -> Result<Self> {
        let problem = plan.problem();
        let a = problem.attention();
        let shift = |element: u64| match placement {
            Placement::Aligned => 0,
            Placement::Odd => element,
        };
        let mut held = Vec::new();
        let mut outputs = Vec::new();
        let mut largest = plan.workspace_bytes() + 2 * GUARD;
        for (operand, n) in problem.operands() {
            let given = &inputs.operands;
            let encode = |values: &[f64]| stored(problem, operand, values);
            let contents = match operand {
                Operand::Q => encode(inputs.q),
                Operand::K => encode(inputs.k),
                Operand::V => encode(inputs.v),
                Operand::Mask => given.mask.iter().map(|&keep| keep.into()).collect(),
                Operand::Bias => DType::F32.encode(given.bias.iter().copied()),
                Operand::O | Operand::Lse | Operand::Weights => {
                    let element = if operand == Operand::O { a.dtype.bytes() } else { 4 };
                    let offset = GUARD + shift(element);
                    let size = (offset + n * element).next_multiple_of(4) + GUARD;
                    let size = size.next_multiple_of(16);
                    largest = largest.max(size);
                    let buffer = guarded(engine, operand.name(), size)?;
                    outputs.push(Output { operand, buffer, offset });
                    continue;
                }
                _ => continue,
            };
            let element = offset_alignment(problem, operand);
            let offset = GUARD + shift(element);
            held.push((operand, surrounded(engine, operand.name(), &contents, offset)?, offset));
        }
        let workspace = guarded(engine, "workspace", plan.workspace_bytes().next_multiple_of(16))?;
        let poison = surrounded(engine, "poison", &[], largest.next_multiple_of(16))?;
        Ok(Self { inputs: held, outputs, workspace, poison })
    }

    /// Fills a buffer with the pattern.
    fn poison(&self, encoder: &mut wgpu::CommandEncoder, buffer: &wgpu::Buffer) {
        encoder.copy_buffer_to_buffer(&self.poison, 0, buffer, 0, buffer.size());
    }

    /// Every view; tables are still to be named.
    fn tensors(&self) -> Tensors<'_> {
        let input = |operand: Operand| {
            let found = self.inputs.iter().find(|(o, _, _)| *o == operand);
            found.map(|(_, buffer, offset)| BufferView { buffer, offset: *offset })
        };
        let output = |operand: Operand| {
            let found = self.outputs.iter().find(|x| x.operand == operand);
            found.map(|x| BufferView { buffer: &x.buffer, offset: x.offset })
        };
        // Every problem has these four; the poison stands in for what cannot be missing.
        let [q, k, v] = [Operand::Q, Operand::K, Operand::V].map(input);
        let or_poison = |found: Option<_>| found.unwrap_or_else(|| (&self.poison).into());
        let mut tensors =
            Tensors::new(or_poison(q), or_poison(k), or_poison(v), or_poison(output(Operand::O)));
        tensors.lse = output(Operand::Lse);
        tensors.weights = output(Operand::Weights);
        tensors.mask = input(Operand::Mask);
        tensors.bias = input(Operand::Bias);
        tensors.workspace = Some((&self.workspace).into());
        tensors
    }

    /// Decodes outputs and finds the first byte written outside them.
    fn collect(
        &self,
        problem: &Problem,
        operands: &Operands<'_>,
        buffers: &[Vec<u8>],
    ) -> (Outputs, Option<String>) {
        let mut outputs = Outputs { o: Vec::new(), lse: Vec::new(), weights: None };
        let mut stray = None;
        for (x, buffer) in self.outputs.iter().zip(buffers) {
            let mut touched = buffer.clone();
            let rows = rows_of(problem, x.operand, x.offset as usize, operands);
            let values = match x.operand {
                Operand::O => decode(buffer, &rows, problem.attention().dtype, 0.0),
                _ => decode(buffer, &rows, DType::F32, f64::NEG_INFINITY),
            };
            match x.operand {
                Operand::Lse => outputs.lse = values,
                Operand::Weights => outputs.weights = Some(values),
                _ => outputs.o = values,
            }
            erase(&mut touched, &rows);
            let wrong = touched.iter().enumerate().position(|(i, &byte)| byte != POISON[i % 4]);
            stray = stray.or(wrong.map(|i| format!("{} at byte {i}", x.operand)));
        }
        (outputs, stray)
    }
}

/// A row of an output: its byte range, or how many elements it has where the output does not hold it.
enum OutputRow {
    Held(Range<usize>),
    Absent(usize),
}

/// The rows of an output that starts at byte `offset`, in the order of gapless outputs.
fn rows_of(
    problem: &Problem,
    operand: Operand,
    offset: usize,
    operands: &Operands<'_>,
) -> Vec<OutputRow> {
    let a = problem.attention();
    let (size, len) = match operand {
        Operand::O => (a.dtype.bytes() as usize, a.shape.dim_v as usize),
        Operand::Weights => (4, a.shape.seq_kv as usize),
        _ => (4, 1),
    };
    let row = |at: [u32; 3]| {
        if !problem.stores(at[0], at[2], operands) {
            return OutputRow::Absent(len);
        }
        let index = match operand {
            Operand::O => problem.index(operand, at, operands) as usize,
            _ => problem.lse_index(at, operands) as usize * len,
        };
        OutputRow::Held(offset + index * size..offset + (index + len) * size)
    };
    a.shape.row_positions().map(row).collect()
}

fn decode(buffer: &[u8], rows: &[OutputRow], dtype: DType, absent: f64) -> Vec<f64> {
    let row = |row: &OutputRow| match row {
        OutputRow::Held(range) => dtype.decode(&buffer[range.clone()]),
        OutputRow::Absent(len) => vec![absent; *len],
    };
    rows.iter().flat_map(row).collect()
}

/// Puts the pattern where an output's rows are.
fn erase(buffer: &mut [u8], rows: &[OutputRow]) {
    for row in rows {
        if let OutputRow::Held(range) = row {
            for i in range.clone() {
                buffer[i] = POISON[i % 4];
            }
        }
    }
}

fn usage() -> wgpu::BufferUsages {
    wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST
}

fn guarded(engine: &Engine, name: &str, bytes: u64) -> Result<wgpu::Buffer> {
    crate::device::create_buffer(engine.device(), name, bytes, usage())
}

/// A buffer of pattern with `contents` at `offset`, and a guard after it.
fn surrounded(engine: &Engine, name: &str, contents: &[u8], offset: u64) -> Result<wgpu::Buffer> {
    let size = (offset + contents.len() as u64 + GUARD).next_multiple_of(16);
    let size = usize::try_from(size).map_err(|_| Error::out_of_memory(name, size))?;
    let mut bytes: Vec<u8> = POISON.iter().copied().cycle().take(size).collect();
    bytes[offset as usize..][..contents.len()].copy_from_slice(contents);
    crate::device::upload(engine.device(), name, &bytes, usage())
}
