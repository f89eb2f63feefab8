//! `KvCache`: keys and values of a batch of sequences, in buffers that calls read in place.

use std::sync::Arc;

use crate::cache::append::Append;
use crate::cache::descriptor::KvCacheDescriptor;
use crate::cache::pages::{Changes, PageTable};
use crate::device::{self, Pipeline};
use crate::engine::{
    BoundRange, BufferView, Compiled, Dispatch, Draft, Engine, Table, Tensors, bind, bind_compiled,
};
use crate::error::{Error, Result};
use crate::kernel::{Binding, KernelSpec, Params, Work};
use crate::plan::{Plan, Policy};
use crate::problem::{Attention, Operand};

/// A key/value cache on the GPU.
///
/// Its methods record what they do into the caller's encoder and keep count on the host, so a loop that appends and
/// attends never reads back; lengths and page tables that calls read live on the GPU and change in the order of
/// the encoder's commands. An encoder that a method wrote to must be submitted, in the order of the calls.
///
/// Contiguous or in pages, sequences of different lengths, any [`Storage`](crate::Storage); pages that a fork
/// shares are copied when one of the sequences writes to them.
///
/// ```
/// use heedful::cache::{AppendDescriptor, KvCache, KvCacheDescriptor};
/// use heedful::{Engine, Storage};
/// # fn main() -> Result<(), heedful::Error> {
/// # let Ok(engine) = Engine::new_blocking() else { return Ok(()) };
/// let descriptor = KvCacheDescriptor {
///     storage: Storage::F16,
///     pages: Some([64, 16]),
///     ..KvCacheDescriptor::new(2, 4, 32, 256)
/// };
/// let cache = KvCache::new(&engine, &descriptor)?;
/// // Eight query heads, one new token in each sequence.
/// let plan = engine.plan(&cache.attention(8, 1)?)?;
/// assert_eq!(cache.lengths(), [0, 0]);
///
/// // With a window, and four drafted tokens that are verified at once: each step appends five rows, runs
/// // the call, and goes back to what was accepted with `cache.truncate(&mut encoder, 0, length)`.
/// let descriptor = KvCacheDescriptor { window: Some(64), rows: 5, ..descriptor };
/// let cache = KvCache::new(&engine, &descriptor)?;
/// let verify = engine.plan(&cache.attention(8, 5)?)?;
/// // Keys that more rows would see may be gone; a prompt's rows ask right after they were appended.
/// assert!(cache.attention(8, 6).is_err());
/// let prompt = engine.plan(&cache.attention_of_append(8, 100))?;
/// # let _ = (plan, verify, prompt, AppendDescriptor::new(1));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct KvCache {
    pub(super) device: wgpu::Device,
    descriptor: KvCacheDescriptor,
    table: PageTable,
    pub(super) k: wgpu::Buffer,
    pub(super) v: wgpu::Buffer,
    /// Lengths, counts of the newest append, page table.
    pub(super) state: wgpu::Buffer,
    advance: Vec<Dispatch>,
    copy: Arc<Pipeline>,
    /// What the counts on the GPU are.
    counts: Vec<u32>,
}

impl KvCache {
    /// Makes an empty cache.
    ///
    /// # Errors
    /// Invalid argument; unsupported where keys, values or the page table do not fit one binding, or 32 bits
    /// of address, or no call could read the cache on this device; out of memory; internal.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn new(engine: &Engine, descriptor: &KvCacheDescriptor) -> Result<Self> {
        Self::make(engine, descriptor)
    }

    /// `new` where the device's errors come later, as in a browser: it awaits them.
    ///
    /// # Errors
    /// As `new`.
    pub async fn new_async(engine: &Engine, descriptor: &KvCacheDescriptor) -> Result<Self> {
        device::settled(|| Self::make(engine, descriptor)).await
    }

    pub(super) fn make(engine: &Engine, descriptor: &KvCacheDescriptor) -> Result<Self> {
        descriptor.validate()?;
        let d = *descriptor;
        let caps = engine.capabilities();
        d.check_fits(caps.max_binding_bytes.min(caps.max_buffer_bytes))?;
        let table = match d.pages {
            Some([pages, size]) => {
                let window = d.window.map(|n| [n, d.rows]);
                PageTable::paged(d.sequences, d.capacity, size, pages, window)?
            }
            None => PageTable::contiguous(d.sequences, d.capacity)?,
        };
        // A cache that no call can read is refused before it is filled.
        let call = d.attention(table.row(), d.heads_kv, 1).validate()?;
        Plan::new(&call, caps, &Policy::default())?;
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
        let rows =
            |name: &str, dim| device::create_buffer(engine.device(), name, d.bytes(dim), usage);
        let (k, v) = (rows("cached keys", d.dim_qk)?, rows("cached values", d.dim_v)?);
        let counts = vec![0; d.sequences as usize];
        let words = [table.lengths(), &counts, table.entries()].concat();
        let usage = usage | wgpu::BufferUsages::COPY_DST;
        let bytes = bytemuck::cast_slice(&words);
        let state = device::upload(engine.device(), "cache lengths and pages", bytes, usage)?;
        let params = Params { row_n: d.sequences, seq_kv: d.capacity, ..Params::default() };
        let params = params.with_table(Operand::QLengths, d.sequences);
        let spec = KernelSpec::cache_advance();
        let work = Work { batch: d.sequences, ..Work::default() };
        let ranges = vec![(Binding::Aux, BoundRange::whole(&state))];
        let advance = bind(engine, [Draft::new(spec, work, params, ranges)])?;
        let copy = engine.pipelines.get(engine.device(), &KernelSpec::cache_copy())?;
        let device = engine.device().clone();
        Ok(Self { device, descriptor: d, table, k, v, state, advance, copy, counts })
    }

    /// What it was made as.
    pub fn descriptor(&self) -> &KvCacheDescriptor {
        &self.descriptor
    }

    /// Tokens of each sequence once everything recorded so far has run.
    pub fn lengths(&self) -> &[u32] {
        self.table.lengths()
    }

    /// Pages that no sequence holds; 0 without pages.
    pub fn free_pages(&self) -> u32 {
        self.table.free_pages()
    }

    /// The buffer of keys, `[sequences, heads_kv, capacity, dim_qk]`, or `[pages, heads_kv, tokens of a page, dim_qk]`,
    /// as the descriptor stores rows; sequences or pages begin at multiples of 8 units of a row.
    pub fn k(&self) -> &wgpu::Buffer {
        &self.k
    }

    /// The buffer of values, the same with rows of dim_v.
    pub fn v(&self) -> &wgpu::Buffer {
        &self.v
    }

    /// The keys of a sequence, `[heads_kv][length][dim_qk]`, from what was read back of [`k`](Self::k); those of pages
    /// that were given back are left out.
    pub fn k_rows(&self, bytes: &[u8], sequence: u32) -> Vec<Vec<f64>> {
        self.rows(self.descriptor.dim_qk, bytes, sequence)
    }

    /// The values of a sequence, `[heads_kv][length][dim_v]`, from what was read back of [`v`](Self::v); those of pages
    /// that were given back are left out.
    pub fn v_rows(&self, bytes: &[u8], sequence: u32) -> Vec<Vec<f64>> {
        self.rows(self.descriptor.dim_v, bytes, sequence)
    }

    fn rows(&self, dim: u32, bytes: &[u8], sequence: u32) -> Vec<Vec<f64>> {
        let d = &self.descriptor;
        let (strides, [pages, size]) = (d.strides(dim), d.extent());
        let length = self.lengths().get(sequence as usize).copied().unwrap_or(0);
        let row = |(head, token): (u32, u32)| {
            let entry = sequence * self.table.row() + token / size;
            let page = *self.table.entries().get(entry as usize).filter(|page| **page < pages)?;
            let unit = strides.index(page.into(), head.into(), (token % size).into());
            let at = d.storage.bytes(unit) as usize;
            let end = at + d.storage.bytes(d.storage.row_units(dim).into()) as usize;
            Some(d.storage.decode(bytes.get(at..end)?, dim as usize))
        };
        let all = (0..d.heads_kv).flat_map(|head| (0..length).map(move |token| (head, token)));
        all.filter_map(row).collect()
    }

    /// A call of `seq_q` query rows, the newest of each sequence, against the cache: causal from the bottom right, and
    /// within the window where there is one; f32. Everything else can be added. It is right at any time, whatever was
    /// appended or truncated before it.
    ///
    /// # Errors
    /// Invalid argument where there is a window and `seq_q` is above the descriptor's
    /// [`rows`](KvCacheDescriptor::rows): earlier queries see keys that may have been given back.
    pub fn attention(&self, heads_q: u32, seq_q: u32) -> Result<Attention> {
        let rows = self.descriptor.rows;
        if self.descriptor.window.is_some() && seq_q > rows {
            let wanted = format!(
                "at most {rows}, the cache's `rows`: a window gives back keys that earlier queries see"
            );
            return Err(Error::invalid("seq_q", seq_q, wanted));
        }
        Ok(self.descriptor.attention(self.table.row(), heads_q, seq_q))
    }

    /// A call of the newest append's rows, such as a prompt's: as [`attention`](Self::attention), but query
    /// row i of a sequence is its i-th new token, and rows past its count are empty. Any number of rows,
    /// window or not, since nothing they see is given back before the next append. Its `q_lengths` are
    /// [`counts`](Self::counts).
    pub fn attention_of_append(&self, heads_q: u32, seq_q: u32) -> Attention {
        self.descriptor.attention(self.table.row(), heads_q, seq_q).q_lengths()
    }

    /// The tensors of such a call: keys, values, lengths and pages are the cache's.
    pub fn tensors<'a>(
        &'a self,
        q: impl Into<BufferView<'a>>,
        o: impl Into<BufferView<'a>>,
    ) -> Tensors<'a> {
        let mut tensors = Tensors::new(q, &self.k, &self.v, o);
        tensors.kv_lengths = Some(self.words(0));
        tensors.page_table =
            self.descriptor.pages.map(|_| self.words(2 * self.descriptor.sequences));
        tensors
    }

    /// How many tokens the newest append gave each sequence and truncation left, `[sequences]` on the GPU: the query
    /// lengths of [`attention_of_append`](Self::attention_of_append).
    pub fn counts(&self) -> Table<'_> {
        self.words(self.descriptor.sequences)
    }

    /// Records the append of `counts[i]` new rows to sequence i, of those that `append` is bound to.
    ///
    /// # Errors
    /// Invalid argument where `append` is bound to another cache, the counts are not the sequences' or are
    /// more than the rows bound; full where the capacity or the pages do not suffice; out of memory; device
    /// lost. Nothing is recorded or changed then.
    pub fn append(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        append: &Append,
        counts: &[u32],
    ) -> Result<()> {
        if append.state != self.state {
            return Err(Error::invalid(
                "append",
                "one bound to another cache",
                "one of this cache",
            ));
        }
        if let Some(i) = counts.iter().position(|count| *count > append.rows) {
            let found = format!("{} for sequence {i}", counts[i]);
            return Err(Error::invalid("counts", found, format!("at most {} rows", append.rows)));
        }
        let changes = self.table.append(counts)?;
        let n = self.descriptor.sequences;
        let mut words: Vec<(u32, u32)> =
            changes.entries.iter().map(|(at, page)| (2 * n + at, *page)).collect();
        if self.counts != counts {
            words.extend((n..).zip(counts.iter().copied()));
        }
        let (staged, copies) = self.prepare(words, changes)?;
        self.counts.copy_from_slice(counts);
        self.write(encoder, &staged);
        let mut pass = begin(encoder, "cache append");
        for dispatch in copies.iter().chain(&append.dispatches).chain(&self.advance) {
            dispatch.record(&mut pass);
        }
        Ok(())
    }

    /// Records that a sequence forgets its tokens from `length` on.
    ///
    /// With a window a sequence can go back to the length before the newest append that gave it tokens, by up
    /// to [`rows`](KvCacheDescriptor::rows) from the longest that it has been, and to 0; further back where
    /// pages happen to be there.
    ///
    /// # Errors
    /// Invalid argument where there is no such sequence, it is shorter, or a window needs tokens that were given back;
    /// out of memory; device lost. Nothing is recorded or changed then.
    pub fn truncate(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        sequence: u32,
        length: u32,
    ) -> Result<()> {
        let before = self.lengths().get(sequence as usize).copied().unwrap_or_default();
        let changes = self.table.truncate(sequence, length)?;
        let count = self.counts[sequence as usize].saturating_sub(before - length);
        self.set(encoder, sequence, count, changes)
    }

    /// Records that a sequence forgets all its tokens.
    ///
    /// # Errors
    /// As [`truncate`](Self::truncate).
    pub fn reset(&mut self, encoder: &mut wgpu::CommandEncoder, sequence: u32) -> Result<()> {
        self.truncate(encoder, sequence, 0)
    }

    /// Records that sequence `to` becomes the same as `from`. In pages nothing is copied until one of them writes to a
    /// page they share; without pages all of it is.
    ///
    /// # Errors
    /// Invalid argument where there is no such sequence, or both are one; out of memory; device lost. Nothing is
    /// recorded or changed then.
    pub fn fork(&mut self, encoder: &mut wgpu::CommandEncoder, from: u32, to: u32) -> Result<()> {
        let changes = self.table.fork(from, to)?;
        self.set(encoder, to, self.counts[from as usize], changes)
    }

    /// Records a sequence's new length, count of new tokens and pages.
    fn set(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        sequence: u32,
        count: u32,
        changes: Changes,
    ) -> Result<()> {
        let n = self.descriptor.sequences;
        let mut words = vec![(sequence, self.table.lengths()[sequence as usize])];
        if self.counts[sequence as usize] != count {
            words.push((n + sequence, count));
        }
        words.extend(changes.entries.iter().map(|(at, page)| (2 * n + at, *page)));
        let (staged, copies) = self.prepare(words, changes)?;
        self.counts[sequence as usize] = count;
        self.write(encoder, &staged);
        if !copies.is_empty() {
            let mut pass = begin(encoder, "cache fork");
            copies.iter().for_each(|dispatch| dispatch.record(&mut pass));
        }
        Ok(())
    }

    /// What a change needs on the GPU, made before anything is recorded; the table is as it was where that fails.
    fn prepare(
        &mut self,
        words: Vec<(u32, u32)>,
        changes: Changes,
    ) -> Result<(Option<Staged>, Vec<Dispatch>)> {
        let made = self.stage(words).and_then(|staged| Ok((staged, self.copies(&changes)?)));
        made.inspect_err(|_| self.table.undo(changes))
    }

    /// Puts new words of the state, by index, into a buffer that the encoder can copy from.
    fn stage(&self, mut words: Vec<(u32, u32)>) -> Result<Option<Staged>> {
        if words.is_empty() {
            return Ok(None);
        }
        // Of several changes to a word the last one holds.
        words.sort_by_key(|(at, _)| *at);
        words.reverse();
        words.dedup_by_key(|(at, _)| *at);
        words.reverse();
        let (places, values): (Vec<u32>, Vec<u32>) = words.into_iter().unzip();
        // MAP_WRITE: written in place, without a staging buffer of wgpu's own.
        let usage = wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::MAP_WRITE;
        let bytes = bytemuck::cast_slice(&values);
        let buffer = device::upload(&self.device, "cache changes", bytes, usage)?;
        Ok(Some(Staged { buffer, places }))
    }

    /// Records the writing of words of the state, neighbours together.
    fn write(&self, encoder: &mut wgpu::CommandEncoder, staged: &Option<Staged>) {
        let Some(staged) = staged else { return };
        let mut first = 0;
        for run in staged.places.chunk_by(|a, b| a + 1 == *b) {
            let (from, to, bytes) = (4 * first, 4 * u64::from(run[0]), 4 * run.len() as u64);
            encoder.copy_buffer_to_buffer(&staged.buffer, from, &self.state, to, bytes);
            first += run.len() as u64;
        }
    }

    /// Copies of pages of keys and of values.
    fn copies(&self, changes: &Changes) -> Result<Vec<Dispatch>> {
        let d = &self.descriptor;
        let mut copies = Vec::new();
        for [from, to] in &changes.copies {
            for (buffer, dim) in [(&self.k, d.dim_qk), (&self.v, d.dim_v)] {
                let words = (d.storage.bytes(d.strides(dim).batch) / 4) as u32;
                let params = Params {
                    key0: from * words,
                    key_n: words,
                    o_base: to * words,
                    ..Params::default()
                };
                let work = Work { columns: words, ..Work::default() };
                let ranges = vec![(Binding::O, BoundRange::whole(buffer))];
                let draft = Draft::new(KernelSpec::cache_copy(), work, params, ranges);
                copies.push(Compiled { pipeline: self.copy.clone(), draft });
            }
        }
        bind_compiled(&self.device, copies)
    }

    fn words(&self, first: u32) -> Table<'_> {
        Table::Buffer(BufferView { buffer: &self.state, offset: 4 * u64::from(first) })
    }
}

/// Words of the state on their way to the GPU, and where they go.
struct Staged {
    buffer: wgpu::Buffer,
    places: Vec<u32>,
}

fn begin<'a>(encoder: &'a mut wgpu::CommandEncoder, label: &str) -> wgpu::ComputePass<'a> {
    let descriptor = wgpu::ComputePassDescriptor { label: Some(label), timestamp_writes: None };
    encoder.begin_compute_pass(&descriptor)
}
