//! The buffers of a guarded run, and what is in them afterwards.

use std::ops::Range;

use crate::engine::{
    BufferView, Engine, HostTables, Table, Tensors, input_bytes, offset_alignment,
};
use crate::error::{Error, Result};
use crate::feature::Operands;
use crate::feature::operand::Dense;
use crate::plan::Plan;
use crate::problem::{Operand, Problem};
use crate::reference::{Inputs, Outputs};
use crate::tensor::{DType, Layout};

/// NaN as f32, and both halves NaN as f16 and as bf16.
pub(super) const POISON: [u8; 4] = 0x7fff_ffff_u32.to_le_bytes();

/// Bytes before and after every tensor: at least the strictest offset alignment.
pub(super) const GUARD: u64 = 256;

/// Where tensors start in their buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Placement {
    /// At multiples of 256 bytes: kernels read four elements at a time.
    Aligned,
    /// One element later: kernels read one element at a time, and bases do not vanish.
    Odd,
    /// At multiples of 256 bytes of one buffer, which holds outputs, workspace and tables as well.
    Together,
    /// In one buffer, one after another without a gap but what makes every offset odd: neighbours share words.
    TogetherOdd,
}

impl Placement {
    /// Whether tensors start between groups of four elements.
    pub fn is_odd(self) -> bool {
        matches!(self, Self::Odd | Self::TogetherOdd)
    }
}

/// A tensor in a buffer.
pub(super) struct Place {
    pub(super) operand: Operand,
    pub(super) buffer: wgpu::Buffer,
    offset: u64,
}

/// The buffers of a run.
pub(super) struct Held {
    inputs: Vec<Place>,
    pub(super) outputs: Vec<Place>,
    tables: Vec<Place>,
    workspace: (wgpu::Buffer, u64),
    /// What buffers that are written hold before a run: the pattern, or the one buffer as it was.
    before: wgpu::Buffer,
    /// The one buffer as it was, and where in it the workspace is.
    together: Option<(Vec<u8>, Range<usize>)>,
}

impl Held {
    pub(super) fn new(
        engine: &Engine,
        plan: &Plan,
        inputs: &Inputs<'_>,
        tables: &HostTables<'_>,
        placement: Placement,
    ) -> Result<Self> {
        match placement {
            Placement::Aligned => Self::apart(engine, plan, inputs, false),
            Placement::Odd => Self::apart(engine, plan, inputs, true),
            Placement::Together => Self::together(engine, plan, inputs, tables, false),
            Placement::TogetherOdd => Self::together(engine, plan, inputs, tables, true),
        }
    }

    /// A buffer for each tensor, with guards around it.
    fn apart(engine: &Engine, plan: &Plan, inputs: &Inputs<'_>, odd: bool) -> Result<Self> {
        let problem = plan.problem();
        let shift = |element: u64| if odd { element } else { 0 };
        let (mut held, mut outputs) = (Vec::new(), Vec::new());
        let mut largest = plan.workspace_bytes() + 2 * GUARD;
        for (operand, n) in problem.operands() {
            let name = operand.name();
            if let Some(element) = output_element(problem, operand) {
                let offset = GUARD + shift(element);
                let size = (offset + n * element).next_multiple_of(4) + GUARD;
                let size = size.next_multiple_of(16);
                largest = largest.max(size);
                let buffer = guarded(engine, name, size)?;
                outputs.push(Place { operand, buffer, offset });
            } else if let Some(contents) = input_bytes(problem, inputs, operand) {
                let offset = GUARD + shift(offset_alignment(problem, operand));
                let buffer = surrounded(engine, name, &contents, offset)?;
                held.push(Place { operand, buffer, offset });
            }
        }
        let workspace = guarded(engine, "workspace", plan.workspace_bytes().next_multiple_of(16))?;
        let before = surrounded(engine, "poison", &[], largest.next_multiple_of(16))?;
        let (workspace, tables) = ((workspace, 0), Vec::new());
        Ok(Self { inputs: held, outputs, tables, workspace, before, together: None })
    }

    /// One buffer for all tensors, tables and the workspace.
    fn together(
        engine: &Engine,
        plan: &Plan,
        inputs: &Inputs<'_>,
        tables: &HostTables<'_>,
        odd: bool,
    ) -> Result<Self> {
        let problem = plan.problem();
        let mut one = One { bytes: Vec::new(), odd };
        let (mut inside, mut written, mut words) = (Vec::new(), Vec::new(), Vec::new());
        for (operand, n) in problem.operands() {
            if let Some(element) = output_element(problem, operand) {
                written.push((operand, one.put(&poison(n * element), element)));
            } else if let Some(contents) = input_bytes(problem, inputs, operand) {
                let align = offset_alignment(problem, operand);
                inside.push((operand, one.put(&contents, align)));
            } else if let Some(table) = tables.table(operand) {
                let contents: &[u8] = match table {
                    Table::F32(values) => bytemuck::cast_slice(values),
                    Table::U32(values) => bytemuck::cast_slice(values),
                    Table::I32(values) => bytemuck::cast_slice(values),
                    Table::Buffer(_) => continue,
                };
                words.push((operand, one.put(contents, 4)));
            }
        }
        one.odd = false;
        let workspace = one.put(&poison(plan.workspace_bytes()), 256);
        let scratch = workspace as usize..one.bytes.len();
        // The last tensor's last word.
        one.put(&[], 256);
        let upload = |name| crate::device::upload(engine.device(), name, &one.bytes, usage());
        let (buffer, before) = (upload("one buffer")?, upload("one buffer as it was")?);
        let mut contents = one.bytes;
        contents.resize(buffer.size() as usize, 0);
        let places = |list: Vec<(Operand, u64)>| -> Vec<Place> {
            let place = |(operand, offset)| Place { operand, buffer: buffer.clone(), offset };
            list.into_iter().map(place).collect()
        };
        Ok(Self {
            inputs: places(inside),
            outputs: places(written),
            tables: places(words),
            workspace: (buffer.clone(), workspace),
            before,
            together: Some((contents, scratch)),
        })
    }

    /// Fills everything that is written with the pattern.
    pub(super) fn poison(&self, encoder: &mut wgpu::CommandEncoder) {
        let mut written: Vec<&wgpu::Buffer> = self.outputs.iter().map(|x| &x.buffer).collect();
        written.push(&self.workspace.0);
        // In one buffer they are neighbours.
        written.dedup();
        for buffer in written {
            encoder.copy_buffer_to_buffer(&self.before, 0, buffer, 0, buffer.size());
        }
    }

    /// Every view and table.
    pub(super) fn tensors<'a>(&'a self, tables: &'a HostTables<'_>) -> Tensors<'a> {
        let view = |places: &'a [Place], operand: Operand| {
            let found = places.iter().find(|x| x.operand == operand);
            found.map(|x| BufferView { buffer: &x.buffer, offset: x.offset })
        };
        let input = |operand| view(&self.inputs, operand);
        let output = |operand| view(&self.outputs, operand);
        // Every problem has these four; the pattern stands in for what cannot be missing.
        let [q, k, v] = [Operand::Q, Operand::K, Operand::V].map(input);
        let or_poison = |found: Option<_>| found.unwrap_or_else(|| (&self.before).into());
        let mut tensors =
            Tensors::new(or_poison(q), or_poison(k), or_poison(v), or_poison(output(Operand::O)));
        for place in self.inputs.iter().chain(&self.outputs) {
            if let Some(held) = tensors.view_mut(place.operand) {
                *held = Some(BufferView { buffer: &place.buffer, offset: place.offset });
            }
        }
        let (buffer, offset) = &self.workspace;
        tensors.workspace = Some(BufferView { buffer, offset: *offset });
        tables.set(&mut tensors);
        for table in &self.tables {
            let view = BufferView { buffer: &table.buffer, offset: table.offset };
            if let Some(place) = tensors.table_mut(table.operand) {
                *place = Some(Table::Buffer(view));
            }
        }
        tensors
    }

    /// Decodes outputs and finds the first byte written outside them.
    pub(super) fn collect(
        &self,
        problem: &Problem,
        operands: &Operands<'_>,
        buffers: &[Vec<u8>],
    ) -> (Outputs, Option<String>) {
        let mut outputs = Outputs { o: Vec::new(), lse: Vec::new(), weights: None };
        let mut stray = None;
        let rows = |x: &Place| rows_of(problem, x.operand, x.offset as usize, operands);
        for (x, buffer) in self.outputs.iter().zip(buffers) {
            match x.operand.dense() {
                None => {
                    outputs.o = decode(buffer, &rows(x), problem.attention().dtype, 0.0);
                }
                Some(result) => {
                    let values = decode(buffer, &rows(x), DType::F32, f64::NEG_INFINITY);
                    match result {
                        Dense::Lse => outputs.lse = values,
                        Dense::Weights => outputs.weights = Some(values),
                        // Read only.
                        Dense::Mask | Dense::Bias => {}
                    }
                }
            }
            let mut touched = buffer.clone();
            for other in self.outputs.iter().filter(|other| other.buffer == x.buffer) {
                self.erase(&mut touched, &rows(other));
            }
            let own = |i: usize| self.together.as_ref().is_some_and(|(_, at)| at.contains(&i));
            let mut bytes = touched.iter().enumerate();
            let wrong = bytes.position(|(i, byte)| *byte != self.expected(i) && !own(i));
            stray = stray.or(wrong.map(|i| format!("{} at byte {i}", x.operand)));
        }
        (outputs, stray)
    }

    /// What is at a byte of a buffer with outputs before the run.
    fn expected(&self, at: usize) -> u8 {
        self.together.as_ref().map_or(POISON[at % 4], |(contents, _)| contents[at])
    }

    /// Puts back what was where an output's rows are.
    fn erase(&self, buffer: &mut [u8], rows: &[OutputRow]) {
        for row in rows {
            if let OutputRow::Held(range) = row {
                for i in range.clone() {
                    buffer[i] = self.expected(i);
                }
            }
        }
    }
}

/// The contents of the one buffer as it grows.
struct One {
    bytes: Vec<u8>,
    odd: bool,
}

impl One {
    /// Adds a tensor; gives its offset.
    fn put(&mut self, contents: &[u8], align: u64) -> u64 {
        let end = self.bytes.len() as u64;
        let offset = match self.odd {
            // A word of pattern at least.
            false => (end + 4).next_multiple_of(256),
            true => {
                let next = end.next_multiple_of(align);
                if next.is_multiple_of(4 * align) { next + align } else { next }
            }
        };
        let more = poison(offset - end);
        self.bytes.extend_from_slice(&more);
        self.bytes.extend_from_slice(contents);
        offset
    }
}

/// Bytes of an element of an output; `None` for inputs.
fn output_element(problem: &Problem, operand: Operand) -> Option<u64> {
    operand.is_output().then(|| problem.element_bits(operand) / 8)
}

fn poison(bytes: u64) -> Vec<u8> {
    POISON.iter().copied().cycle().take(bytes as usize).collect()
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
    let size = problem.element_bits(operand) as usize / 8;
    let len = match operand.dense() {
        None => a.shape.dim_v,
        Some(Dense::Lse) => 1,
        Some(Dense::Weights | Dense::Mask | Dense::Bias) => a.shape.seq_kv,
    } as usize;
    let row = |at: [u32; 3]| {
        // Weights have rows for the longest sequence, also where others are packed.
        let shown = operand.dense().is_some_and(|x| x != Dense::Lse);
        if !shown && !problem.stores(at[0], at[2], operands) {
            return OutputRow::Absent(len);
        }
        let all = Layout::Bhsd.strides(a.shape.heads_q, a.shape.seq_q, len as u32);
        let index = match operand.dense() {
            None => problem.index(operand, at, operands) as usize,
            Some(Dense::Lse) => problem.lse_index(at, operands) as usize,
            Some(_) => all.index(at[0].into(), at[1].into(), at[2].into()) as usize,
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

fn usage() -> wgpu::BufferUsages {
    wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST
}

pub(super) fn guarded(engine: &Engine, name: &str, bytes: u64) -> Result<wgpu::Buffer> {
    crate::device::create_buffer(engine.device(), name, bytes, usage())
}

/// A buffer of pattern with `contents` at `offset`, and a guard after it.
pub(super) fn surrounded(
    engine: &Engine,
    name: &str,
    contents: &[u8],
    offset: u64,
) -> Result<wgpu::Buffer> {
    let size = (offset + contents.len() as u64 + GUARD).next_multiple_of(16);
    let size = usize::try_from(size).map_err(|_| Error::out_of_memory(name, size))?;
    let mut bytes = poison(size as u64);
    bytes[offset as usize..][..contents.len()].copy_from_slice(contents);
    crate::device::upload(engine.device(), name, &bytes, usage())
}
