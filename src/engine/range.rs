//! Which part of a tensor a block touches, and how it is bound.

use std::ops::Range;

use crate::engine::{BufferView, Engine};
use crate::error::{Error, Result};
use crate::feature::operand::Rows;
use crate::plan::Block;
use crate::problem::{Operand, Problem};

/// A bound range: what a bind group entry needs.
#[derive(Debug, Clone)]
pub(crate) struct BoundRange {
    pub(crate) buffer: wgpu::Buffer,
    pub(crate) offset: u64,
    pub(crate) size: u64,
}

impl BoundRange {
    /// All of a buffer.
    pub(crate) fn whole(buffer: &wgpu::Buffer) -> Self {
        Self { buffer: buffer.clone(), offset: 0, size: buffer.size() }
    }
}

/// Binds elements `touched`, of `bits` each, of a view: the aligned byte range, and the base that makes absolute
/// element indices, taken modulo 2³², land in it.
pub(super) fn bind_range(
    view: BufferView<'_>,
    touched: Range<u64>,
    bits: u64,
    alignment: u64,
) -> Result<(BoundRange, u32)> {
    let first = 8 * view.offset + touched.start * bits;
    let offset = first / 8 / alignment * alignment;
    let end = (view.offset + (touched.end * bits).div_ceil(8)).next_multiple_of(4);
    let base = ((first - 8 * offset) / bits).wrapping_sub(touched.start) as u32;
    if end > view.buffer.size() {
        return Err(Error::internal("binding attention", "a block reaches past its tensor"));
    }
    Ok((BoundRange { buffer: view.buffer.clone(), offset, size: end - offset }, base))
}

/// The elements of an operand, first to past the last, that a block touches.
pub(super) fn touched(
    problem: &Problem,
    operand: Operand,
    block: &Block,
    keys: &Range<u32>,
) -> Range<u64> {
    let a = problem.attention();
    let s = a.shape;
    let group = s.group();
    let kv_heads = block.heads.start / group..(block.heads.end - 1) / group + 1;
    let strided = |heads: &Range<u32>, rows: &Range<u32>, dim: u32| {
        // Where packed sequences and pages lie is known on the GPU only: all rows are bound.
        let extent = problem.extent(operand);
        let all = 0..extent.1;
        let by_table = match operand {
            Operand::K | Operand::V => a.packs_keys() || a.paged.is_some(),
            _ => a.packed.is_some(),
        };
        let (batch, rows) = match by_table {
            true => (0..extent.0, &all),
            false => (block.batch.clone(), rows),
        };
        if rows.is_empty() {
            return 0..0;
        }
        let strides = problem.read_strides(operand);
        let index =
            |[batch, head, row]: [u32; 3]| strides.index(batch.into(), head.into(), row.into());
        let first = index([batch.start, heads.start, rows.start]);
        let last = index([batch.end - 1, heads.end - 1, rows.end - 1]);
        first..last + u64::from(dim)
    };
    let dense = |strides: [u64; 4], keys: &Range<u32>| {
        if keys.is_empty() {
            return 0..0;
        }
        let axes = [&block.batch, &block.heads, &block.rows, keys];
        let sum = |pick: fn(&Range<u32>) -> u32| -> u64 {
            strides.iter().zip(axes).map(|(stride, axis)| stride * u64::from(pick(axis))).sum()
        };
        sum(|axis| axis.start)..sum(|axis| axis.end - 1) + 1
    };
    if let Some(rows) = operand.rows() {
        return match rows {
            Rows::Q => strided(&block.heads, &block.rows, s.dim_qk),
            Rows::K | Rows::V => strided(&kv_heads, keys, problem.read_units(operand)),
            Rows::O => strided(&block.heads, &block.rows, s.dim_v),
        };
    }
    if operand == Operand::Lse && a.packed.is_some() {
        return 0..problem.elements(operand).unwrap_or(0);
    }
    let keys = if operand == Operand::Lse { 0..1 } else { 0..s.seq_kv };
    // Tables are not bound by blocks.
    problem.dense_strides(operand).map_or(0..0, |strides| dense(strides, &keys))
}

impl Engine {
    /// Checks a view of `n` elements of `bytes` each, and binds it whole.
    pub(crate) fn bound_view(
        &self,
        name: &str,
        view: BufferView<'_>,
        n: u64,
        bytes: u64,
    ) -> Result<(BoundRange, u32)> {
        if !view.offset.is_multiple_of(bytes) {
            let wanted = format!("a multiple of {bytes}");
            return Err(Error::invalid(format!("{name} offset"), view.offset, wanted));
        }
        if !view.buffer.usage().contains(wgpu::BufferUsages::STORAGE) {
            let found = format!("{:?}", view.buffer.usage());
            return Err(Error::invalid(format!("{name} buffer usage"), found, "STORAGE"));
        }
        let size = (n * bytes).next_multiple_of(4);
        if view.offset.checked_add(size).is_none_or(|end| end > view.buffer.size()) {
            let found = format!("{} B from offset {}", view.buffer.size(), view.offset);
            return Err(Error::invalid(format!("{name} buffer size"), found, format!("{size} B")));
        }
        let caps = &self.capabilities;
        let limit = caps.max_binding_bytes.saturating_sub(caps.storage_alignment + 4);
        if size > limit {
            let wanted = format!("at most {limit} B in one binding");
            return Err(Error::invalid(name, format!("{size} B"), wanted));
        }
        bind_range(view, 0..n, 8 * bytes, caps.storage_alignment)
    }
}
