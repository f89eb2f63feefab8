//! New rows on their way into a cache.

use std::fmt;
use std::ops::Range;

use crate::cache::kv_cache::KvCache;
use crate::device::{self, Wait};
use crate::engine::{BoundRange, BufferView, Dispatch, Draft, Engine, bind, show};
use crate::error::{Error, Result};
use crate::feature::prepare::{ROTARY_DIM, ROTARY_ROWS};
use crate::kernel::{Binding, DIM_SOURCE, Element, KernelSpec, Params, Width, Work};
use crate::problem::{Operand, Paged};
use crate::tensor::{DType, Layout, Storage, Strides};

/// Rows that are appended together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AppendDescriptor {
    /// New rows per sequence, at most.
    pub rows: u32,
    /// Element type of the new keys and values.
    pub dtype: DType,
    /// Layout of the new keys and values, `[sequences, heads_kv, rows, dim]`.
    pub layout: Layout,
    /// Channels of a key that are turned by its position, and whether pairs are interleaved; see
    /// [`Rotary`](crate::Rotary). Keys in the cache are not turned again.
    pub rotary: Option<(u32, bool)>,
}

impl AppendDescriptor {
    /// f32 rows `[sequences, heads_kv, rows, dim]`, not turned.
    pub fn new(rows: u32) -> Self {
        Self { rows, dtype: DType::F32, layout: Layout::Bhsd, rotary: None }
    }
}

/// The tensors of an append.
#[derive(Debug, Clone, Copy)]
pub struct NewRows<'a> {
    /// New keys `[sequences, heads_kv, rows, dim_qk]`.
    pub k: BufferView<'a>,
    /// New values `[sequences, heads_kv, rows, dim_v]`.
    pub v: BufferView<'a>,
    /// Cosines and sines of the angles, each `[positions, dim / 2]`, where keys are turned.
    pub rotary: Option<[&'a [f32]; 2]>,
}

/// Cosines, then sines of the angles of some places.
struct Angles {
    buffer: wgpu::Buffer,
    places: Range<u32>,
}

/// Dispatches that write new rows from the caller's buffers into a cache, to be recorded any number of times.
#[derive(Debug)]
pub struct Append {
    pub(super) rows: u32,
    pub(super) dispatches: Vec<Dispatch>,
    /// Of the cache it is bound to.
    pub(super) state: wgpu::Buffer,
}

/// What is recorded, a line for each dispatch: its kernel, its workgroups, and the bytes of each buffer that it
/// binds.
impl fmt::Display for Append {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(&self.dispatches, f)
    }
}

impl KvCache {
    /// Ties an append to buffers; their contents may change between appends. Blocks the thread while the
    /// kernel is tried the first time.
    ///
    /// # Errors
    /// Invalid argument naming the tensor; unsupported where the kernel is wrong on this device; out of memory.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn bind_append(
        &self,
        engine: &Engine,
        descriptor: &AppendDescriptor,
        rows: &NewRows<'_>,
    ) -> Result<Append> {
        pollster::block_on(self.bind_append_in(engine, descriptor, rows, Wait::Blocking))
    }

    /// `bind_append` without blocking the thread.
    ///
    /// # Errors
    /// As `bind_append`.
    pub async fn bind_append_async(
        &self,
        engine: &Engine,
        descriptor: &AppendDescriptor,
        rows: &NewRows<'_>,
    ) -> Result<Append> {
        self.bind_append_in(engine, descriptor, rows, Wait::Awaiting).await
    }

    async fn bind_append_in(
        &self,
        engine: &Engine,
        descriptor: &AppendDescriptor,
        rows: &NewRows<'_>,
        wait: Wait,
    ) -> Result<Append> {
        if *engine.device() != self.device {
            return Err(Error::invalid("engine", "one of another device", "one of the cache's"));
        }
        engine.check_queue()?;
        self.proves_append(engine, descriptor, wait).await?;
        device::settled(|| self.bind_unproved(engine, descriptor, rows)).await
    }

    pub(super) fn bind_unproved(
        &self,
        engine: &Engine,
        descriptor: &AppendDescriptor,
        rows: &NewRows<'_>,
    ) -> Result<Append> {
        let d = self.descriptor();
        let most = engine.capabilities().max_workgroups;
        if descriptor.rows == 0 || descriptor.rows > most.min(d.capacity) {
            let wanted = format!("1..={}", most.min(d.capacity));
            return Err(Error::invalid("rows", descriptor.rows, wanted));
        }
        let pairs = u64::from(d.sequences) * u64::from(d.heads_kv);
        if pairs > most.into() {
            return Err(Error::invalid("sequences * heads_kv", pairs, format!("at most {most}")));
        }
        let angles = self.angles(engine, descriptor, rows)?;
        let keys = ("k", rows.k, d.dim_qk, &self.k);
        // Where angles need several bindings, each dispatch writes the keys of its places.
        let parts = angles.iter().map(|angles| (keys, Some(angles)));
        let plain = angles.is_empty().then_some((keys, None));
        let values = (("v", rows.v, d.dim_v, &self.v), None);
        let drafts = parts.chain(plain).chain([values]);
        let drafts = drafts.map(|((name, view, dim, cache), angles)| {
            self.draft(engine, descriptor, (name, view, dim), cache, angles)
        });
        let bound = bind(engine, drafts.collect::<Result<Vec<Draft>>>()?);
        let buffers = [("k", rows.k.buffer), ("v", rows.v.buffer)];
        let dispatches = device::named(bound, engine.device(), &buffers)?;
        Ok(Append { rows: descriptor.rows, dispatches, state: self.state.clone() })
    }

    /// The angles of every place: cosines, then sines, in as many buffers as bindings must be; none where
    /// keys are not turned.
    fn angles(
        &self,
        engine: &Engine,
        descriptor: &AppendDescriptor,
        rows: &NewRows<'_>,
    ) -> Result<Vec<Angles>> {
        let d = self.descriptor();
        let (dim, tables) = match (descriptor.rotary, rows.rotary) {
            (None, None) => return Ok(Vec::new()),
            (Some((dim, _)), Some(tables)) => (dim, tables),
            (Some(_), None) => return Err(Error::invalid("rotary tables", "none", "two")),
            (None, Some(_)) => {
                return Err(Error::invalid("rotary tables", "two", "none: keys are not turned"));
            }
        };
        if dim == 0 || dim % 2 == 1 || dim > d.dim_qk {
            let wanted = format!("an even number up to {}", d.dim_qk);
            return Err(Error::invalid("rotary dim", dim, wanted));
        }
        let half = (dim / 2) as usize;
        let wanted = u64::from(d.capacity) * u64::from(dim / 2);
        for (name, table) in ["rotary_cos", "rotary_sin"].iter().zip(tables) {
            if (table.len() as u64) < wanted || table.len() != tables[0].len() {
                let wanted = format!("at least {wanted}, an angle for every place");
                return Err(Error::invalid(*name, table.len(), wanted));
            }
        }
        let caps = engine.capabilities();
        let room = caps.max_binding_bytes.min(caps.max_buffer_bytes) / (8 * half as u64);
        let step = u32::try_from(room).unwrap_or(u32::MAX).clamp(1, d.capacity);
        let places = (0..d.capacity).step_by(step as usize);
        let part = |first: u32| -> Result<Angles> {
            let places = first..d.capacity.min(first.saturating_add(step));
            let own = places.start as usize * half..places.end as usize * half;
            let words = tables.map(|table| &table[own.clone()]).concat();
            let (bytes, usage) = (bytemuck::cast_slice(&words), wgpu::BufferUsages::STORAGE);
            let buffer = device::upload(engine.device(), "rotary angles", bytes, usage)?;
            Ok(Angles { buffer, places })
        };
        places.map(part).collect()
    }

    /// The draft of what writes the keys of some places, or the values of all.
    fn draft(
        &self,
        engine: &Engine,
        descriptor: &AppendDescriptor,
        (name, view, dim): (&str, BufferView<'_>, u32),
        cache: &wgpu::Buffer,
        angles: Option<&Angles>,
    ) -> Result<Draft> {
        let d = self.descriptor();
        let (source, from, q_base) = self.source(engine, descriptor, (name, view, dim))?;
        let to = d.strides(dim);
        let [pages, page_size] = d.extent();
        let (rotary_dim, _) = descriptor.rotary.unwrap_or_default();
        let places = angles.map_or(0..d.capacity, |angles| angles.places.clone());
        let half = rotary_dim / 2;
        let first = places.start.wrapping_mul(half);
        let params = Params {
            head_n: d.heads_kv,
            seq_kv: d.capacity,
            q_base,
            q_stride_batch: from.batch as u32,
            q_stride_head: from.head as u32,
            q_stride_row: from.row as u32,
            o_stride_batch: to.batch as u32,
            o_stride_head: to.head as u32,
            o_stride_row: to.row as u32,
            key0: places.start,
            key_n: places.len() as u32,
            ..Params::default()
        };
        let paged = Paged { pages, page_size, row: d.capacity.div_ceil(page_size) };
        // Angles are counted from place 0, modulo 2³².
        let sines = (places.len() as u32).wrapping_mul(half).wrapping_sub(first);
        let params = params
            .with(paged.parameters())
            .with([DIM_SOURCE.is(dim), ROTARY_DIM.is(rotary_dim), ROTARY_ROWS.is(places.end)])
            .with_table(Operand::QLengths, d.sequences)
            .with_table(Operand::PageTable, 2 * d.sequences)
            .with_table(Operand::RotaryCos, first.wrapping_neg())
            .with_table(Operand::RotarySin, sines);
        let spec = self.append_spec(engine, descriptor, dim, angles.is_some());
        let mut ranges = vec![
            (Binding::Q, source),
            (Binding::O, BoundRange::whole(cache)),
            (Binding::Aux, BoundRange::whole(&self.state)),
        ];
        ranges.extend(angles.map(|x| (Binding::Angles, BoundRange::whole(&x.buffer))));
        let [batch, heads] = [d.sequences, d.heads_kv];
        let work = Work { batch, heads, rows: descriptor.rows, ..Work::default() };
        Ok(Draft::new(spec, work, params, ranges))
    }

    /// The range of the new rows, their strides, and the base of the range.
    fn source(
        &self,
        engine: &Engine,
        descriptor: &AppendDescriptor,
        (name, view, dim): (&str, BufferView<'_>, u32),
    ) -> Result<(BoundRange, Strides, u32)> {
        let d = self.descriptor();
        let from = descriptor.layout.strides(d.heads_kv, descriptor.rows, dim);
        let sizes = [d.sequences, d.heads_kv, descriptor.rows, dim].map(u64::from);
        let elements = from.span(sizes[0], sizes[1], sizes[2], sizes[3]);
        let Some(elements) = elements.filter(|n| *n <= 1 << 30) else {
            return Err(Error::invalid(name, format!("{from:?}"), "at most 2^30 elements"));
        };
        if [&self.k, &self.v, &self.state].contains(&view.buffer) {
            return Err(Error::invalid(
                name,
                "a buffer of the cache",
                "one that is not the cache's",
            ));
        }
        let size = descriptor.dtype.bytes();
        let (source, q_base) = engine.bound_view(name, view, elements, size)?;
        Ok((source, from, q_base))
    }

    pub(super) fn append_spec(
        &self,
        engine: &Engine,
        descriptor: &AppendDescriptor,
        dim: u32,
        turned: bool,
    ) -> KernelSpec {
        let d = self.descriptor();
        let native = engine.capabilities().shader_f16;
        let read = Element {
            storage: descriptor.dtype.into(),
            native_f16: descriptor.dtype == DType::F16 && native,
            width: Width::Single,
        };
        let width = if dim.is_multiple_of(4) { Width::Vec4 } else { Width::Single };
        let native_f16 = d.storage == Storage::F16 && native;
        let write = Element { storage: d.storage, native_f16, width };
        let rotary = descriptor.rotary.filter(|_| turned).map(|(_, interleaved)| interleaved);
        KernelSpec::cache_append(read, write, d.pages.is_some(), rotary)
    }
}
