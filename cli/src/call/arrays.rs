//! Arrays of files as tensors of a call.

use heedful::problem::Packed;
use heedful::verify::data::{CaseData, scatter};
use heedful::verify::npy::Array;
use heedful::{Attention, Error, Layout, Operand, Problem, Shape};

use crate::args::RunArgs;
use crate::files::Elements::{Counts, Floats};
use crate::files::Source;

/// q, k and v as they are in files, past keys before the new ones.
pub(super) struct Arrays {
    pub(super) q: Array,
    pub(super) k: Array,
    pub(super) v: Array,
    /// Past keys.
    pub(super) past: u32,
}

impl Arrays {
    /// `[batch, heads, seq, dim]`.
    pub(super) fn read(args: &RunArgs, source: &mut Source, q: Array) -> Result<Self, Error> {
        let q = four_axes("q", q)?;
        let mut k = four_axes("k", source.get("k", &args.k, Floats)?)?;
        let mut v = four_axes("v", source.get("v", &args.v, Floats)?)?;
        let mut past = 0;
        if let (Some(past_k), Some(past_v)) = (&args.past_k, &args.past_v) {
            let past_k = four_axes("past-k", source.get("past-k", past_k, Floats)?)?;
            let past_v = four_axes("past-v", source.get("past-v", past_v, Floats)?)?;
            past = past_k.shape[2] as u32;
            k = prepend("past-k", past_k, k)?;
            v = prepend("past-v", past_v, v)?;
        }
        Ok(Self { q, k, v, past })
    }

    /// `[total, heads, dim]`, brought to one sequence `[1, heads, total, dim]`.
    pub(super) fn packed(args: &RunArgs, source: &mut Source, q: Array) -> Result<Self, Error> {
        let (k, v) = (source.get("k", &args.k, Floats)?, source.get("v", &args.v, Floats)?);
        let whole = |name: &str, array: Array| {
            let [total, heads, dim] = array.shape[..] else {
                let found = format!("shape {:?}", array.shape);
                return Err(Error::invalid(format!("--{name}"), found, "[total, heads, dim]"));
            };
            let row = |head: u64, i: u64| {
                let start = ((i * heads + head) * dim) as usize;
                &array.values[start..start + dim as usize]
            };
            let rows = (0..heads).flat_map(|head| (0..total).map(move |i| (head, i)));
            let values = rows.flat_map(|(head, i)| row(head, i)).copied().collect();
            Ok(Array { shape: vec![1, heads, total, dim], values, ..array })
        };
        Ok(Self { q: whole("q", q)?, k: whole("k", k)?, v: whole("v", v)?, past: 0 })
    }

    /// `projects`: q may have other channels than k.
    pub(super) fn shape(&self, projects: bool) -> Result<Shape, Error> {
        let Self { q, k, v, .. } = self;
        let size = |name: &str, n: u64| {
            u32::try_from(n).map_err(|_| Error::invalid(format!("--{name}"), n, "less than 2^32"))
        };
        same("k", "batch", k.shape[0], q.shape[0])?;
        same("v", "batch", v.shape[0], q.shape[0])?;
        same("v", "heads", v.shape[1], k.shape[1])?;
        same("v", "seq", v.shape[2], k.shape[2])?;
        same("k", "dim", k.shape[3], if projects { k.shape[3] } else { q.shape[3] })?;
        Ok(Shape {
            batch: size("q", q.shape[0])?,
            heads_q: size("q", q.shape[1])?,
            heads_kv: size("k", k.shape[1])?,
            seq_q: size("q", q.shape[2])?,
            seq_kv: size("k", k.shape[2])?,
            dim_qk: size("k", k.shape[3])?,
            dim_v: size("v", v.shape[3])?,
        })
    }

    /// As many sequences as there are starts, as long as the longest.
    pub(super) fn packed_shape(&self, data: &CaseData, projects: bool) -> Result<Shape, Error> {
        let lengths = |starts: &[u32]| starts.windows(2).map(|w| w[1].saturating_sub(w[0])).max();
        Ok(Shape {
            batch: data.cu_seqlens_q.len().saturating_sub(1) as u32,
            seq_q: lengths(&data.cu_seqlens_q).unwrap_or(0),
            seq_kv: lengths(&data.cu_seqlens_kv).unwrap_or(0),
            ..self.shape(projects)?
        })
    }

    /// Packs the call: totals are the arrays', layouts those that packed tensors have unless they are strides.
    pub(super) fn pack(&self, call: &mut Attention, data: &CaseData) -> Result<(), Error> {
        let totals = [&self.q, &self.k].map(|array| array.shape[2] as u32);
        let tables = [("cu-seqlens-q", &data.cu_seqlens_q), ("cu-seqlens-k", &data.cu_seqlens_kv)];
        for ((name, starts), total) in tables.into_iter().zip(totals) {
            let rising = starts.windows(2).all(|w| w[0] <= w[1]);
            if starts.first() != Some(&0) || starts.last() != Some(&total) || !rising {
                let wanted = format!("0, rising to {total}");
                return Err(Error::invalid(format!("--{name}"), format!("{starts:?}"), wanted));
            }
        }
        let [total_q, total_kv] = totals;
        call.packed = Some(Packed { total_q, total_kv });
        let Attention { layout_q, layout_k, layout_v, layout_o, .. } = call;
        for layout in [layout_q, layout_k, layout_v, layout_o] {
            if *layout == Layout::Bhsd {
                *layout = Layout::Bshd;
            }
        }
        Ok(())
    }
}

/// Rows `[batch, heads, seq, dim]` as the call's layout has them and its storage holds them; keys in pages are
/// `[pages, heads, page_size, dim]`.
pub(super) fn laid(problem: &Problem, operand: Operand, array: &Array) -> Result<Vec<f64>, Error> {
    let s = problem.attention().shape;
    let heads = if operand == Operand::Q { s.heads_q } else { s.heads_kv };
    let ((batch, seq), dim) = (problem.extent(operand), problem.dim(operand));
    let sizes = [batch, heads, seq, dim];
    for ((axis, found), wanted) in
        ["batch", "heads", "seq", "dim"].iter().zip(&array.shape).zip(sizes)
    {
        same(operand.name(), axis, *found, wanted.into())?;
    }
    let storage = problem.storage(operand);
    let rows = array.values.chunks(dim.max(1) as usize);
    let values: Vec<f64> = rows.flat_map(|row| storage.round(row)).collect();
    let mut laid = scatter(&values, problem.strides(operand), sizes);
    // Where rows have scales, those of the last.
    laid.resize(problem.elements(operand).unwrap_or(0) as usize, f64::NAN);
    Ok(laid)
}

fn same(name: &str, axis: &str, found: u64, wanted: u64) -> Result<(), Error> {
    if found == wanted {
        return Ok(());
    }
    Err(Error::invalid(format!("--{name}, axis {axis}"), found, wanted))
}

/// `[seq, dim]` and `[heads, seq, dim]` get leading axes of 1.
fn four_axes(name: &str, mut array: Array) -> Result<Array, Error> {
    if !(2..=4).contains(&array.shape.len()) {
        let found = format!("shape {:?}", array.shape);
        return Err(Error::invalid(format!("--{name}"), found, "2, 3 or 4 axes"));
    }
    while array.shape.len() < 4 {
        array.shape.insert(0, 1);
    }
    Ok(array)
}

/// Puts `past` before `new` along the sequence.
fn prepend(name: &str, past: Array, new: Array) -> Result<Array, Error> {
    let differ = [0, 1, 3].iter().any(|&axis| past.shape[axis] != new.shape[axis]);
    if differ {
        let found = format!("shape {:?}", past.shape);
        let wanted = format!("{:?} but for the sequence", new.shape);
        return Err(Error::invalid(format!("--{name}"), found, wanted));
    }
    let row = |array: &Array| (array.shape[2] * array.shape[3]) as usize;
    let (past_row, new_row) = (row(&past), row(&new));
    let pairs = (new.shape[0] * new.shape[1]) as usize;
    let mut values = Vec::with_capacity(past.values.len() + new.values.len());
    for pair in 0..pairs {
        values.extend_from_slice(&past.values[pair * past_row..][..past_row]);
        values.extend_from_slice(&new.values[pair * new_row..][..new_row]);
    }
    let mut shape = new.shape.clone();
    shape[2] += past.shape[2];
    Ok(Array { shape, values, ..new })
}

/// A shape of at most four axes, with leading axes of 1.
pub(super) fn right_aligned(name: &str, shape: &[u64]) -> Result<[u32; 4], Error> {
    let bad = || {
        let found = format!("shape {shape:?}");
        Error::invalid(format!("--{name}"), found, "at most 4 axes, [batch, heads, seq_q, seq_kv]")
    };
    let mut full = [1_u32; 4];
    let start = 4_usize.checked_sub(shape.len()).ok_or_else(bad)?;
    for (axis, n) in full[start..].iter_mut().zip(shape) {
        *axis = u32::try_from(*n).map_err(|_| bad())?;
    }
    Ok(full)
}

/// Where packed sequences start, and their total.
pub(super) fn starts(
    names: [&Option<String>; 2],
    source: &mut Source,
) -> Result<[Vec<u32>; 2], Error> {
    let mut tables = [Vec::new(), Vec::new()];
    for ((option, name), table) in
        ["cu-seqlens-q", "cu-seqlens-k"].iter().zip(names).zip(&mut tables)
    {
        let Some(name) = name else { continue };
        let array = source.get(option, name, Counts)?;
        if array.shape.len() != 1 {
            let found = format!("shape {:?}", array.shape);
            return Err(Error::invalid(format!("--{option}"), found, "[sequences + 1]"));
        }
        *table = array.values.iter().map(|n| *n as u32).collect();
    }
    Ok(tables)
}
