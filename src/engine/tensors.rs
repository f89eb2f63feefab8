//! The caller's tensors: views into the caller's buffers, and small tables.

use crate::engine::{Extent, check_apart};
use crate::error::{Error, Result};
use crate::feature::ElementType;
use crate::feature::operand::for_operands;
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

macro_rules! define_tensors {
    (
        rows { $($(#[$rows_doc:meta])* $rows:ident: $Rows:ident,)* }
        output { $(#[$output_doc:meta])* $output:ident: $Output:ident, }
        results { $($(#[$result_doc:meta])* $result:ident: $Result:ident,)* }
        dense {
            $(
                $(#[$dense_doc:meta])*
                $dense:ident: $Dense:ident, $dense_type:ident $(with $dense_gradient:ident)?,
            )*
        }
        tables {
            $(
                $(#[$table_doc:meta])*
                $table:ident: $Table:ident, $table_type:ident $(with $table_gradient:ident)?,
            )*
        }
    ) => {
        /// The tensors of one call; what the descriptor does not name stays `None`.
        ///
        /// All of them may lie in one buffer, as sub-allocators place them. Outputs and the workspace share no byte
        /// with anything else, where a tensor with strides counts from its first byte to its last: an output in the
        /// gaps of another tensor is refused. A call compiles variants of its own for operands that share a buffer
        /// with an output. In a browser the tensors of such a buffer start at multiples of 256 bytes.
        ///
        /// o may be q, the same view twice, where rows of both lie alike in whole words. The rows of q are gone then.
        /// In a browser that is refused.
        #[derive(Debug, Clone, Copy)]
        pub struct Tensors<'a> {
            $($(#[$rows_doc])* pub $rows: BufferView<'a>,)*
            $(#[$output_doc])* pub $output: BufferView<'a>,
            $($(#[$result_doc])* pub $result: Option<BufferView<'a>>,)*
            $($(#[$dense_doc])* pub $dense: Option<BufferView<'a>>,)*
            $($(#[$table_doc])* pub $table: Option<Table<'a>>,)*
            /// Scratch of at least `plan.workspace_bytes()` bytes (usage `STORAGE`); `None` uses the
            /// engine's own.
            pub workspace: Option<BufferView<'a>>,
        }

        impl<'a> Tensors<'a> {
            /// The four tensors that every call has.
            pub fn new(
                $($rows: impl Into<BufferView<'a>>,)*
                $output: impl Into<BufferView<'a>>,
            ) -> Self {
                Self {
                    $($rows: $rows.into(),)*
                    $output: $output.into(),
                    $($result: None,)*
                    $($dense: None,)*
                    $($table: None,)*
                    workspace: None,
                }
            }

            /// The same with one more tensor or table, named rather than written as a field. A table is then read on
            /// the GPU, as [`Table::Buffer`].
            pub fn with(mut self, operand: Operand, view: impl Into<BufferView<'a>>) -> Self {
                let view = view.into();
                match operand {
                    $(Operand::$Rows => self.$rows = view,)*
                    Operand::$Output => self.$output = view,
                    $(Operand::$Result => self.$result = Some(view),)*
                    $(Operand::$Dense => self.$dense = Some(view),)*
                    $(Operand::$Table => self.$table = Some(Table::Buffer(view)),)*
                }
                self
            }

            /// The view of an operand; `None` where there is none, and for tables.
            pub(crate) fn view(&self, operand: Operand) -> Option<BufferView<'a>> {
                match operand {
                    $(Operand::$Rows => Some(self.$rows),)*
                    Operand::$Output => Some(self.$output),
                    $(Operand::$Result => self.$result,)*
                    $(Operand::$Dense => self.$dense,)*
                    $(Operand::$Table => None,)*
                }
            }

            /// The place of an operand that may be absent; `None` for q, k, v, o and tables.
            pub(crate) fn view_mut(
                &mut self,
                operand: Operand,
            ) -> Option<&mut Option<BufferView<'a>>> {
                match operand {
                    $(Operand::$Rows => None,)*
                    Operand::$Output => None,
                    $(Operand::$Result => Some(&mut self.$result),)*
                    $(Operand::$Dense => Some(&mut self.$dense),)*
                    $(Operand::$Table => None,)*
                }
            }

            /// The table of an operand; `None` where there is none, and for views.
            pub(crate) fn table(&self, operand: Operand) -> Option<Table<'a>> {
                match operand {
                    $(Operand::$Rows => None,)*
                    Operand::$Output => None,
                    $(Operand::$Result => None,)*
                    $(Operand::$Dense => None,)*
                    $(Operand::$Table => self.$table,)*
                }
            }

            /// The place of a table; `None` for views.
            pub(crate) fn table_mut(&mut self, operand: Operand) -> Option<&mut Option<Table<'a>>> {
                match operand {
                    $(Operand::$Rows => None,)*
                    Operand::$Output => None,
                    $(Operand::$Result => None,)*
                    $(Operand::$Dense => None,)*
                    $(Operand::$Table => Some(&mut self.$table),)*
                }
            }
        }
    };
}
for_operands!(define_tensors);

impl<'a> Tensors<'a> {
    /// Checks every view and table against the problem: present or absent as announced, usage,
    /// alignment, room, and outputs apart from inputs.
    pub(crate) fn validate(&self, problem: &Problem, workspace_bytes: u64) -> Result<()> {
        for &operand in Operand::ALL {
            let (view, table) = (self.view(operand), self.table(operand));
            match (problem.elements(operand), view, table) {
                (Some(n), Some(view), _) => check_view(problem, operand, view, n)?,
                (Some(n), None, Some(table)) => check_table(operand, table, n)?,
                (None, None, None) => {}
                (wanted, _, _) => return Err(presence(operand, wanted.is_some())),
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
            if let Some(view) = self.view(operand) {
                let bytes = n.saturating_mul(problem.element_bits(operand)).div_ceil(8);
                let written = operand.is_output();
                // Elements of two rows in one word would be written by both.
                let in_place = problem.replaces_q() && view.offset.is_multiple_of(4);
                let over = (operand == Operand::O && in_place).then(|| Operand::Q.name());
                extents.push(Extent { name: operand.name(), view, bytes, written, over });
            } else if let Some(Table::Buffer(view)) = self.table(operand) {
                extents.push(Extent::read(operand.name(), view, n.saturating_mul(4)));
            }
        }
        let workspace = self.workspace.map(|x| Extent::written("workspace", x, workspace_bytes));
        extents.extend(workspace);
        extents
    }
}

/// What the byte offset of a view must be a multiple of.
pub(crate) fn offset_alignment(problem: &Problem, operand: Operand) -> u64 {
    // Quantised rows are words.
    match operand.rows().is_some() && problem.storage(operand).dtype().is_none() {
        true => 4,
        // Bits start at any byte.
        false => problem.element_bits(operand).div_ceil(8),
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
    let bits = n.checked_mul(problem.element_bits(operand));
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
    let wanted = match operand.element_type() {
        ElementType::F32 => Some("f32"),
        ElementType::U32 => Some("u32"),
        ElementType::I32 => Some("i32"),
        // Words are words: the caller's functions know what they mean. Others are views.
        ElementType::Word | ElementType::Stored | ElementType::Flag => None,
    };
    if let Some(wanted) = wanted.filter(|wanted| *wanted != kind) {
        return Err(Error::invalid(format!("{name} type"), kind, wanted));
    }
    if length as u64 != n {
        return Err(Error::invalid(format!("{name} length"), length, n));
    }
    Ok(())
}
