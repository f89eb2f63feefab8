//! The caller's tensors: views into the caller's buffers, and small tables.

use crate::engine::{Extent, check_apart};
use crate::error::{Error, Result};
use crate::problem::{Operand, Problem};

/// A byte offset into a buffer of the caller's. Sizes and strides come from the descriptor.
///
/// The offset may be any multiple of the element size; multiples of four elements are fastest.
#[derive(Debug, Clone, Copy)]
pub struct BufferView<'a> {
    /// The buffer; usage `STORAGE`.
    pub buffer: &'a wgpu::Buffer,
    /// Bytes before the first element.
    pub offset: u64,
}

impl<'a> From<&'a wgpu::Buffer> for BufferView<'a> {
    fn from(buffer: &'a wgpu::Buffer) -> Self {
        Self { buffer, offset: 0 }
    }
}

/// A small table: one 32-bit value per query head or per sequence.
#[derive(Debug, Clone, Copy)]
pub enum Table<'a> {
    /// f32 values from the host, copied when the tensors are bound.
    F32(&'a [f32]),
    /// u32 values from the host, copied when the tensors are bound.
    U32(&'a [u32]),
    /// i32 values from the host, copied when the tensors are bound.
    I32(&'a [i32]),
    /// Values that live on the GPU, read anew at every run (usage `COPY_SRC`, offset a multiple of
    /// 4). Lengths beyond the tensors' own are read as the tensors' own.
    Buffer(BufferView<'a>),
}

/// The tensors of one call; what the descriptor does not name stays `None`.
///
/// All of them may lie in one buffer, as sub-allocators place them. Outputs and the workspace share no byte with
/// anything else, where a tensor with strides counts from its first byte to its last: an output in the gaps of another
/// tensor is refused. A call compiles variants of its own for operands that share a buffer with an output. In a
/// browser the tensors of such a buffer start at multiples of 256 bytes.
#[derive(Debug, Clone, Copy)]
pub struct Tensors<'a> {
    /// Queries `[batch, heads_q, seq_q, dim_qk]`.
    pub q: BufferView<'a>,
    /// Keys `[batch, heads_kv, seq_kv, dim_qk]`.
    pub k: BufferView<'a>,
    /// Values `[batch, heads_kv, seq_kv, dim_v]`.
    pub v: BufferView<'a>,
    /// Output `[batch, heads_q, seq_q, dim_v]`.
    pub o: BufferView<'a>,
    /// Log-sum-exp `[batch, heads_q, seq_q]`, f32, without gaps.
    pub lse: Option<BufferView<'a>>,
    /// Scores or weights `[batch, heads_q, seq_q, seq_kv]`, f32, without gaps.
    pub weights: Option<BufferView<'a>>,
    /// Boolean mask, one byte per element, nonzero = attend; the buffer is padded to 4 bytes.
    pub mask: Option<BufferView<'a>>,
    /// Additive bias, f32.
    pub bias: Option<BufferView<'a>>,
    /// ALiBi slopes `[heads_q]`, f32.
    pub alibi_slopes: Option<Table<'a>>,
    /// Sinks `[heads_q]`, f32.
    pub sinks: Option<Table<'a>>,
    /// Key lengths `[batch]`, u32.
    pub kv_lengths: Option<Table<'a>>,
    /// Query lengths `[batch]`, u32.
    pub q_lengths: Option<Table<'a>>,
    /// Alignment offsets `[batch]`, i32.
    pub offsets: Option<Table<'a>>,
    /// First query row of each packed sequence and their total, `[batch + 1]`, u32.
    pub cu_seqlens_q: Option<Table<'a>>,
    /// First key of each packed sequence and their total, `[batch + 1]`, u32.
    pub cu_seqlens_kv: Option<Table<'a>>,
    /// Weights of the additive score `[dim_qk]` or `[heads_q, dim_qk]`, f32.
    pub score_v: Option<Table<'a>>,
    /// Cosines of the rotary angles, `[table_rows, dim / 2]`, f32.
    pub rotary_cos: Option<Table<'a>>,
    /// Sines of the rotary angles, `[table_rows, dim / 2]`, f32.
    pub rotary_sin: Option<Table<'a>>,
    /// Factors of the cosine score, `[heads_q]`, f32.
    pub head_scale: Option<Table<'a>>,
    /// Matrix of the general score, `[dim_q, dim_qk]`, f32.
    pub score_matrix: Option<Table<'a>>,
    /// Biases by relative position, `[heads_q, left + 1 + right]`, f32.
    pub relative: Option<Table<'a>>,
    /// Centers of local attention `[batch, seq_q]`, f32.
    pub centers: Option<Table<'a>>,
    /// First edge of each query row and their total `[seq_q + 1]`, u32, rising.
    pub edge_starts: Option<Table<'a>>,
    /// Key of each edge, u32, rising within each row.
    pub edge_keys: Option<Table<'a>>,
    /// Bias of each edge, f32.
    pub edge_bias: Option<Table<'a>>,
    /// Rotary positions `[batch, seq_q]`, u32.
    pub positions: Option<Table<'a>>,
    /// Segment ids of query rows `[batch, seq_q]`, u32.
    pub segments_q: Option<Table<'a>>,
    /// Segment ids of keys `[batch, seq_kv]`, u32.
    pub segments_kv: Option<Table<'a>>,
    /// Page of each run of keys of a paged call, `[batch, row]`, u32.
    pub page_table: Option<Table<'a>>,
    /// Block table, [`Blocks::words`](crate::Blocks::words) words.
    pub blocks: Option<Table<'a>>,
    /// Words for the caller's own functions.
    pub table: Option<Table<'a>>,
    /// Scratch of at least `plan.workspace_bytes()` bytes (usage `STORAGE`); `None` uses the
    /// engine's own.
    pub workspace: Option<BufferView<'a>>,
}

impl<'a> Tensors<'a> {
    /// The four tensors that every call has.
    pub fn new(
        q: impl Into<BufferView<'a>>,
        k: impl Into<BufferView<'a>>,
        v: impl Into<BufferView<'a>>,
        o: impl Into<BufferView<'a>>,
    ) -> Self {
        Self {
            q: q.into(),
            k: k.into(),
            v: v.into(),
            o: o.into(),
            lse: None,
            weights: None,
            mask: None,
            bias: None,
            alibi_slopes: None,
            sinks: None,
            kv_lengths: None,
            q_lengths: None,
            offsets: None,
            cu_seqlens_q: None,
            cu_seqlens_kv: None,
            score_v: None,
            rotary_cos: None,
            rotary_sin: None,
            head_scale: None,
            score_matrix: None,
            relative: None,
            centers: None,
            edge_starts: None,
            edge_keys: None,
            edge_bias: None,
            positions: None,
            segments_q: None,
            segments_kv: None,
            page_table: None,
            blocks: None,
            table: None,
            workspace: None,
        }
    }

    pub(crate) fn view(&self, operand: Operand) -> Option<BufferView<'a>> {
        match operand {
            Operand::Q => Some(self.q),
            Operand::K => Some(self.k),
            Operand::V => Some(self.v),
            Operand::O => Some(self.o),
            Operand::Lse => self.lse,
            Operand::Weights => self.weights,
            Operand::Mask => self.mask,
            Operand::Bias => self.bias,
            _ => None,
        }
    }

    pub(crate) fn table(&self, operand: Operand) -> Option<Table<'a>> {
        let mut copy = *self;
        copy.table_mut(operand).and_then(|table| *table)
    }

    pub(crate) fn table_mut(&mut self, operand: Operand) -> Option<&mut Option<Table<'a>>> {
        Some(match operand {
            Operand::AlibiSlopes => &mut self.alibi_slopes,
            Operand::Sinks => &mut self.sinks,
            Operand::KvLengths => &mut self.kv_lengths,
            Operand::QLengths => &mut self.q_lengths,
            Operand::Offsets => &mut self.offsets,
            Operand::CuSeqlensQ => &mut self.cu_seqlens_q,
            Operand::CuSeqlensKv => &mut self.cu_seqlens_kv,
            Operand::ScoreV => &mut self.score_v,
            Operand::RotaryCos => &mut self.rotary_cos,
            Operand::RotarySin => &mut self.rotary_sin,
            Operand::HeadScale => &mut self.head_scale,
            Operand::ScoreMatrix => &mut self.score_matrix,
            Operand::Relative => &mut self.relative,
            Operand::Centers => &mut self.centers,
            Operand::EdgeStarts => &mut self.edge_starts,
            Operand::EdgeKeys => &mut self.edge_keys,
            Operand::EdgeBias => &mut self.edge_bias,
            Operand::Positions => &mut self.positions,
            Operand::SegmentsQ => &mut self.segments_q,
            Operand::SegmentsKv => &mut self.segments_kv,
            Operand::PageTable => &mut self.page_table,
            Operand::Blocks => &mut self.blocks,
            Operand::Table => &mut self.table,
            _ => return None,
        })
    }

    /// Checks every view and table against the problem: present or absent as announced, usage,
    /// alignment, room, and outputs apart from inputs.
    pub(crate) fn validate(&self, problem: &Problem, workspace_bytes: u64) -> Result<()> {
        let operands = problem.operands();
        let announced = |operand| operands.iter().find(|(o, _)| *o == operand).map(|(_, n)| *n);
        for operand in ALL_VIEWS {
            match (announced(operand), self.view(operand)) {
                (Some(n), Some(view)) => check_view(problem, operand, view, n)?,
                (None, None) => {}
                (wanted, _) => return Err(presence(operand, wanted.is_some())),
            }
        }
        for operand in ALL_TABLES {
            match (announced(operand), self.table(operand)) {
                (Some(n), Some(table)) => check_table(operand, table, n)?,
                (None, None) => {}
                (wanted, _) => return Err(presence(operand, wanted.is_some())),
            }
        }
        self.check_edges()?;
        self.check_pages(problem)?;
        if let Some(view) = self.workspace {
            check_range("workspace", view, workspace_bytes, 256)?;
        }
        check_apart(&self.extents(problem, workspace_bytes))
    }

    /// Edges on the host rise; those on the GPU are read as far as they make sense.
    fn check_edges(&self) -> Result<()> {
        let (Some(Table::U32(starts)), Some(Table::U32(keys))) = (self.edge_starts, self.edge_keys)
        else {
            return Ok(());
        };
        let total = keys.len() as u32;
        if starts.first() != Some(&0) || starts.last() != Some(&total) || !starts.is_sorted() {
            let found = format!("{:?} to {:?}", starts.first(), starts.last());
            return Err(Error::invalid("edge_starts", found, format!("0, rising to {total}")));
        }
        let rows = starts.windows(2).enumerate();
        for (row, ends) in rows {
            let keys = &keys[ends[0] as usize..ends[1] as usize];
            if !keys.is_sorted_by(|a, b| a < b) {
                let found = format!("row {row} with {keys:?}");
                return Err(Error::invalid("edge_keys", found, "keys that rise within a row"));
            }
        }
        Ok(())
    }

    /// Pages and lengths of a paged call, as far as they are on the host: those on the GPU are read as far as
    /// they make sense.
    fn check_pages(&self, problem: &Problem) -> Result<()> {
        let Some(paged) = problem.attention().paged else { return Ok(()) };
        let Some(Table::U32(lengths)) = self.kv_lengths else { return Ok(()) };
        let longest = problem.attention().shape.seq_kv;
        for (batch, length) in lengths.iter().enumerate() {
            if *length > longest {
                let found = format!("{length} for sequence {batch}");
                return Err(Error::invalid("kv_lengths", found, format!("at most {longest}")));
            }
            let Some(Table::U32(table)) = self.page_table else { continue };
            let row = &table[batch * paged.row as usize..][..paged.row as usize];
            let used = &row[..length.div_ceil(paged.page_size) as usize];
            if let Some(i) = used.iter().position(|page| *page >= paged.pages) {
                let found = format!("{} at {i} of sequence {batch}", used[i]);
                let wanted = format!("a page below {}", paged.pages);
                return Err(Error::invalid("page_table", found, wanted));
            }
        }
        Ok(())
    }

    /// The bytes of every tensor and of every table on the GPU.
    pub(crate) fn extents(&self, problem: &Problem, workspace_bytes: u64) -> Vec<Extent<'a>> {
        let mut extents = Vec::new();
        for (operand, n) in problem.operands() {
            let written = matches!(operand, Operand::O | Operand::Lse | Operand::Weights);
            if let Some(view) = self.view(operand) {
                let bytes = n.saturating_mul(element_bits(problem, operand)).div_ceil(8);
                extents.push(Extent { name: operand.name(), view, bytes, written });
            } else if let Some(Table::Buffer(view)) = self.table(operand) {
                extents.push(Extent::read(operand.name(), view, n.saturating_mul(4)));
            }
        }
        let workspace = self.workspace.map(|x| Extent::written("workspace", x, workspace_bytes));
        extents.extend(workspace);
        extents
    }
}

pub(super) const ALL_VIEWS: [Operand; 8] = [
    Operand::Q,
    Operand::K,
    Operand::V,
    Operand::O,
    Operand::Lse,
    Operand::Weights,
    Operand::Mask,
    Operand::Bias,
];

pub(crate) const ALL_TABLES: [Operand; 23] = [
    Operand::AlibiSlopes,
    Operand::Sinks,
    Operand::KvLengths,
    Operand::QLengths,
    Operand::Offsets,
    Operand::CuSeqlensQ,
    Operand::CuSeqlensKv,
    Operand::ScoreV,
    Operand::RotaryCos,
    Operand::RotarySin,
    Operand::HeadScale,
    Operand::ScoreMatrix,
    Operand::Relative,
    Operand::Centers,
    Operand::EdgeStarts,
    Operand::EdgeKeys,
    Operand::EdgeBias,
    Operand::Positions,
    Operand::SegmentsQ,
    Operand::SegmentsKv,
    Operand::PageTable,
    Operand::Blocks,
    Operand::Table,
];

/// Bits of one element (a unit of stored rows) of an operand that is a view.
pub(crate) fn element_bits(problem: &Problem, operand: Operand) -> u64 {
    match operand {
        Operand::Q | Operand::K | Operand::V | Operand::O => problem.storage(operand).unit_bits(),
        Operand::Mask => 8,
        _ => 32,
    }
}

/// What the byte offset of a view must be a multiple of.
pub(crate) fn offset_alignment(problem: &Problem, operand: Operand) -> u64 {
    let rows = matches!(operand, Operand::Q | Operand::K | Operand::V | Operand::O);
    match rows && problem.storage(operand).dtype().is_none() {
        true => 4,
        false => element_bits(problem, operand) / 8,
    }
}

fn presence(operand: Operand, wanted: bool) -> Error {
    let (found, wanted) = if wanted {
        ("no tensor", "one, since the descriptor announces it")
    } else {
        ("a tensor", "none, since the descriptor does not announce it")
    };
    Error::invalid(operand.name(), found, wanted)
}

fn check_view(problem: &Problem, operand: Operand, view: BufferView<'_>, n: u64) -> Result<()> {
    if n == 0 {
        return Ok(());
    }
    let bits = n.checked_mul(element_bits(problem, operand));
    let bytes = bits.and_then(|bits| bits.div_ceil(8).checked_next_multiple_of(4));
    let Some(bytes) = bytes else {
        return Err(Error::invalid(operand.name(), format!("{n} elements"), "fewer"));
    };
    check_range(operand.name(), view, bytes, offset_alignment(problem, operand))
}

pub(super) fn check_range(name: &str, view: BufferView<'_>, bytes: u64, align: u64) -> Result<()> {
    if !view.offset.is_multiple_of(align) {
        let wanted = format!("a multiple of {align}");
        return Err(Error::invalid(format!("{name} offset"), view.offset, wanted));
    }
    if !view.buffer.usage().contains(wgpu::BufferUsages::STORAGE) {
        let found = format!("{:?}", view.buffer.usage());
        return Err(Error::invalid(format!("{name} buffer usage"), found, "STORAGE"));
    }
    check_room(name, view, bytes)
}

fn check_room(name: &str, view: BufferView<'_>, bytes: u64) -> Result<()> {
    // Bindings are whole words, and a view may start within one.
    let end = view.offset.checked_add(bytes);
    if end.is_none_or(|end| end > view.buffer.size()) {
        let found = format!("{} B from offset {}", view.buffer.size(), view.offset);
        return Err(Error::invalid(format!("{name} buffer size"), found, format!("{bytes} B")));
    }
    Ok(())
}

fn check_table(operand: Operand, table: Table<'_>, n: u64) -> Result<()> {
    let name = operand.name();
    let wanted = match operand {
        Operand::AlibiSlopes
        | Operand::Sinks
        | Operand::ScoreV
        | Operand::RotaryCos
        | Operand::RotarySin
        | Operand::HeadScale
        | Operand::ScoreMatrix
        | Operand::Relative
        | Operand::Centers
        | Operand::EdgeBias => "f32",
        Operand::Offsets => "i32",
        _ => "u32",
    };
    let (kind, length) = match table {
        Table::F32(values) => ("f32", values.len()),
        Table::U32(values) => ("u32", values.len()),
        Table::I32(values) => ("i32", values.len()),
        Table::Buffer(view) => {
            if !view.offset.is_multiple_of(4) {
                return Err(Error::invalid(
                    format!("{name} offset"),
                    view.offset,
                    "a multiple of 4",
                ));
            }
            if !view.buffer.usage().contains(wgpu::BufferUsages::COPY_SRC) {
                let found = format!("{:?}", view.buffer.usage());
                return Err(Error::invalid(format!("{name} buffer usage"), found, "COPY_SRC"));
            }
            return check_room(name, view, n * 4);
        }
    };
    // Words are words: the caller's functions know what they mean.
    if kind != wanted && operand != Operand::Table {
        return Err(Error::invalid(format!("{name} type"), kind, wanted));
    }
    if length as u64 != n {
        return Err(Error::invalid(format!("{name} length"), length, n));
    }
    Ok(())
}
