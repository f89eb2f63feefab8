//! The key/value cache: what is appended is what calls read, through forks, truncations and windows.

#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod common;

use heedful::cache::{Append, AppendDescriptor, KvCache, KvCacheDescriptor, NewRows, PageTable};
use heedful::device::Readback;
use heedful::feature::Operands;
use heedful::reference::{Inputs, attend};
use heedful::{
    Align, Attention, DType, Engine, Layout, Operand, Rotary, RotaryScaling, Shape, Storage, Table,
    rotary_tables, wgpu,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

const HEADS: u32 = 2;
const DIM: [u32; 2] = [12, 20];

fn upload(engine: &Engine, bytes: &[u8]) -> wgpu::Buffer {
    let usage =
        wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let size = (bytes.len() as u64).next_multiple_of(4).max(16);
    let descriptor = wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
    let buffer = engine.device().create_buffer(&descriptor);
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().next_multiple_of(4), 0);
    engine.queue().write_buffer(&buffer, 0, &padded);
    buffer
}

fn read(engine: &Engine, buffer: &wgpu::Buffer) -> Vec<u8> {
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    let back = Readback::record(engine.device(), &mut encoder, buffer, 0, buffer.size()).unwrap();
    engine.queue().submit([encoder.finish()]);
    back.read_blocking().unwrap()
}

fn encode(engine: &Engine, record: impl FnOnce(&mut wgpu::CommandEncoder)) {
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    record(&mut encoder);
    engine.queue().submit([encoder.finish()]);
}

struct Random(ChaCha8Rng);

impl Random {
    fn below(&mut self, n: u32) -> u32 {
        (self.0.next_u64() % u64::from(n)) as u32
    }

    fn values(&mut self, n: usize) -> Vec<f64> {
        let value = |x: u64| (x >> 40) as f64 / f64::from(1 << 23) - 1.0;
        (0..n).map(|_| DType::F32.round(value(self.0.next_u64()))).collect()
    }
}

/// A cache, the buffers that new rows come from, and a model of what it should hold.
struct Modelled {
    cache: KvCache,
    append: Append,
    sources: [wgpu::Buffer; 2],
    rows: u32,
    /// Per sequence and token: rows of keys and of values, `[heads_kv * dim]`.
    tokens: Vec<Vec<[Vec<f64>; 2]>>,
}

impl Modelled {
    fn new(engine: &Engine, descriptor: KvCacheDescriptor, rows: u32) -> Self {
        let cache = KvCache::new(engine, &descriptor).unwrap();
        let n = descriptor.sequences * HEADS * rows;
        let sources = DIM.map(|dim| upload(engine, &vec![0; (4 * n * dim) as usize]));
        let new = NewRows { k: (&sources[0]).into(), v: (&sources[1]).into(), rotary: None };
        let append = cache.bind_append(engine, &AppendDescriptor::new(rows), &new).unwrap();
        let tokens = vec![Vec::new(); descriptor.sequences as usize];
        Self { cache, append, sources, rows, tokens }
    }

    /// Appends random rows; whether there was room.
    fn append(&mut self, engine: &Engine, random: &mut Random, counts: &[u32]) -> bool {
        let sequences = counts.len();
        let rows = self.rows as usize;
        let drawn = DIM.map(|dim| random.values(sequences * HEADS as usize * rows * dim as usize));
        for (buffer, values) in self.sources.iter().zip(&drawn) {
            engine.queue().write_buffer(buffer, 0, &DType::F32.encode(values.iter().copied()));
        }
        let mut full = false;
        encode(engine, |encoder| {
            let before = self.cache.lengths().to_vec();
            match self.cache.append(encoder, &self.append, counts) {
                Ok(()) => {}
                Err(error) => {
                    assert!(error.is_full(), "{error}");
                    assert_eq!(self.cache.lengths(), before);
                    full = true;
                }
            }
        });
        if full {
            return false;
        }
        let storage = self.cache.descriptor().storage;
        for (sequence, count) in counts.iter().enumerate() {
            for row in 0..*count as usize {
                let token = [0, 1].map(|side: usize| {
                    let dim = DIM[side] as usize;
                    let head = |head: usize| {
                        let at = ((sequence * HEADS as usize + head) * rows + row) * dim;
                        storage.round(&drawn[side][at..at + dim])
                    };
                    (0..HEADS as usize).flat_map(head).collect()
                });
                self.tokens[sequence].push(token);
            }
        }
        true
    }

    /// Runs a call of `seq_q` rows and compares it with the reference on the model.
    fn attend(&self, engine: &Engine, random: &mut Random, seq_q: u32) {
        let d = *self.cache.descriptor();
        let call = self.cache.attention(2 * HEADS, seq_q);
        let plan = engine.plan(&call).unwrap();
        let q = random.values(plan.problem().operands()[0].1 as usize);
        let q_buffer = upload(engine, &DType::F32.encode(q.iter().copied()));
        let o = upload(engine, &vec![0; 4 * call.shape.elements()[3] as usize]);
        let bound = engine.bind(&plan, &self.cache.tensors(&q_buffer, &o)).unwrap();
        encode(engine, |encoder| bound.encode(encoder));
        let found = DType::F32.decode(&read(engine, &o));
        // The same call on what the model holds, without pages.
        let longest = self.tokens.iter().map(Vec::len).max().unwrap_or(0) as u32;
        let shape = Shape { seq_kv: longest, ..call.shape };
        let plain = Attention { shape, paged: None, kv_storage: None, ..call.clone() };
        let plain = plain.layout(Layout::Bhsd);
        let lay = |side: usize| -> Vec<f64> {
            let dim = DIM[side] as usize;
            let mut laid = Vec::new();
            for tokens in &self.tokens {
                for head in 0..HEADS as usize {
                    for token in 0..longest as usize {
                        match tokens.get(token) {
                            Some(rows) => laid.extend(&rows[side][head * dim..][..dim]),
                            None => laid.resize(laid.len() + dim, f64::NAN),
                        }
                    }
                }
            }
            laid
        };
        let (k, v) = (lay(0), lay(1));
        let kv_lengths: Vec<u32> = self.tokens.iter().map(|x| x.len() as u32).collect();
        assert_eq!(self.cache.lengths(), kv_lengths);
        let operands = Operands { kv_lengths: &kv_lengths, ..Default::default() };
        let inputs = Inputs { q: &q, k: &k, v: &v, operands };
        let wanted = attend(&plain.validate().unwrap(), &inputs).unwrap();
        let near =
            found.iter().zip(&wanted.o).position(|(x, y)| (x - y).abs() > 1e-5 || x.is_nan());
        assert_eq!(near, None, "{d:?} {}, lengths {kv_lengths:?}", plan.kernels()[0]);
    }
}

fn descriptor(storage: Storage, pages: Option<[u32; 2]>) -> KvCacheDescriptor {
    let base = KvCacheDescriptor::new(3, HEADS, DIM[0], 70);
    KvCacheDescriptor { dim_v: DIM[1], storage, pages, ..base }
}

/// Rows come back as their storage rounds them, and nothing but them is written.
#[test]
fn rows_are_written_where_they_belong_and_nowhere_else() {
    let Some(engine) = common::gpu::engine("rows_are_written") else { return };
    let mut random = Random(ChaCha8Rng::seed_from_u64(1));
    for storage in Storage::ALL {
        for pages in [None, Some([60, 1]), Some([30, 3]), Some([5, 16]), Some([3, 64])] {
            let mut x = Modelled::new(&engine, descriptor(storage, pages), 7);
            assert!(x.append(&engine, &mut random, &[5, 0, 7]));
            let before = [Operand::K, Operand::V].map(|o| read(&engine, x.cache.buffer(o)));
            assert!(x.append(&engine, &mut random, &[1, 7, 3]));
            for (side, operand) in [Operand::K, Operand::V].into_iter().enumerate() {
                let bytes = read(&engine, x.cache.buffer(operand));
                let dim = DIM[side] as usize;
                let mut written = 0;
                for (sequence, tokens) in x.tokens.iter().enumerate() {
                    let found = x.cache.rows_of(operand, &bytes, sequence as u32);
                    let wanted = (0..HEADS as usize)
                        .flat_map(|h| tokens.iter().map(move |t| &t[side][h * dim..][..dim]));
                    for (found, wanted) in found.iter().zip(wanted) {
                        // A value half way between two quanta may go either way.
                        let quantum = if storage.dtype().is_some() { 0.0 } else { 0.15 };
                        let near = |(x, y): (&f64, &f64)| (x - y).abs() <= quantum;
                        assert!(
                            found.iter().zip(wanted).all(near),
                            "{storage} {pages:?} {operand}"
                        );
                        written += 1;
                    }
                }
                assert_eq!(written, HEADS * (6 + 7 + 10));
                let row = storage.bytes(storage.row_units(DIM[side]).into()) as usize;
                let changed = bytes.iter().zip(&before[side]).filter(|(a, b)| a != b).count();
                assert!(changed <= (HEADS * 11) as usize * row, "{storage} {pages:?}: {changed} B");
            }
        }
    }
}

/// What the kernels make of a row is within the budget that the storage documents.
#[test]
fn quantised_rows_keep_the_error_budget() {
    let Some(engine) = common::gpu::engine("error_budget") else { return };
    let mut random = Random(ChaCha8Rng::seed_from_u64(2));
    for (storage, levels) in [(Storage::Int8, 254.0), (Storage::Int4, 13.9)] {
        let cache = KvCache::new(&engine, &descriptor(storage, Some([20, 8]))).unwrap();
        let values = random.values((3 * HEADS * 40 * DIM[1]) as usize);
        let buffer = upload(&engine, &DType::F32.encode(values.iter().copied()));
        let rows = NewRows { k: (&buffer).into(), v: (&buffer).into(), rotary: None };
        let mut cache = cache;
        let append = cache.bind_append(&engine, &AppendDescriptor::new(40), &rows).unwrap();
        encode(&engine, |encoder| cache.append(encoder, &append, &[40, 1, 0]).unwrap());
        let found = cache.rows_of(Operand::V, &read(&engine, cache.buffer(Operand::V)), 0);
        assert_eq!(found.len(), (HEADS * 40) as usize);
        for (row, found) in values.chunks(DIM[1] as usize).zip(&found) {
            let most = row.iter().fold(0.0_f64, |m, x| m.max(x.abs()));
            for (x, y) in row.iter().zip(found) {
                assert!((x - y).abs() <= most / levels * (1.0 + 1e-5), "{storage}: {x} became {y}");
            }
        }
    }
}

#[test]
fn ten_thousand_random_steps_agree_with_a_plain_model() {
    let Some(engine) = common::gpu::engine("ten_thousand") else { return };
    for (seed, storage, pages, steps) in [
        (3, Storage::F32, Some([40, 4]), 5000),
        (4, Storage::F16, Some([90, 1]), 2500),
        (5, Storage::F32, None, 2500),
    ] {
        let mut random = Random(ChaCha8Rng::seed_from_u64(seed));
        let mut x = Modelled::new(&engine, descriptor(storage, pages), 5);
        let (mut refused, mut done) = (0, [0; 4]);
        for _ in 0..steps {
            let op = random.below(8);
            match op {
                0..=3 => {
                    let counts = [0, 1, 2].map(|_| random.below(6));
                    refused += u32::from(!x.append(&engine, &mut random, &counts));
                    done[0] += 1;
                }
                4 => {
                    let (from, to) = (random.below(3), random.below(3));
                    encode(&engine, |encoder| {
                        assert_eq!(x.cache.fork(encoder, from, to).is_ok(), from != to);
                    });
                    x.tokens[to as usize] = x.tokens[from as usize].clone();
                    done[1] += 1;
                }
                5 => {
                    let sequence = random.below(3);
                    let length = random.below(x.tokens[sequence as usize].len() as u32 + 1);
                    encode(&engine, |encoder| {
                        assert!(x.cache.truncate(encoder, sequence, 71).is_err());
                        x.cache.truncate(encoder, sequence, length).unwrap();
                    });
                    x.tokens[sequence as usize].truncate(length as usize);
                    done[2] += 1;
                }
                _ => {
                    x.attend(&engine, &mut random, 1 + op % 2 * 2);
                    done[3] += 1;
                }
            }
        }
        println!("{done:?} steps, {refused} refused");
        assert!(refused > 20 && done.iter().all(|n| *n > 200), "{done:?} {refused}");
        encode(&engine, |encoder| {
            (0..3).for_each(|sequence| x.cache.reset(encoder, sequence).unwrap());
        });
        assert_eq!(x.cache.free_pages(), pages.map_or(0, |[n, _]| n), "a page leaked");
    }
}

#[test]
fn windows_give_old_pages_back_and_see_the_rest() {
    let Some(engine) = common::gpu::engine("windows") else { return };
    let mut random = Random(ChaCha8Rng::seed_from_u64(6));
    // Without giving pages back, 3 sequences of 70 tokens would need 54 pages of 4.
    let windowed = KvCacheDescriptor { window: Some(9), ..descriptor(Storage::F32, Some([15, 4])) };
    let mut x = Modelled::new(&engine, windowed, 5);
    for step in 0..60 {
        let count = 1 + u32::from(step % 7 == 0);
        assert!(x.append(&engine, &mut random, &[count, 1, 1]), "step {step}");
        if step % 3 == 0 {
            x.attend(&engine, &mut random, 1);
        }
    }
    assert!(x.cache.lengths()[0] > 60);
    // Back to where the window's tokens are gone: refused, and nothing changed.
    encode(&engine, |encoder| {
        let error = x.cache.truncate(encoder, 0, 20).unwrap_err();
        assert!(error.to_string().contains("of which a window sees"), "{error}");
        x.cache.truncate(encoder, 1, 57).unwrap();
    });
    x.tokens[1].truncate(57);
    x.attend(&engine, &mut random, 1);
}

#[test]
fn shared_pages_are_copied_by_the_first_that_writes() {
    let mut table = PageTable::paged(3, 40, 4, 10, None);
    table.append(&[6, 0, 0]).unwrap();
    assert_eq!(table.free_pages(), 8);
    table.fork(0, 1).unwrap();
    table.fork(0, 2).unwrap();
    assert_eq!(table.free_pages(), 8, "a fork takes no page");
    let first = table.entries()[1];
    let changes = table.append(&[0, 1, 0]).unwrap();
    assert_eq!(changes.copies, [[first, table.entries()[11]]]);
    // Two holders are left, both write: one copies, the other keeps the page.
    let changes = table.append(&[1, 0, 1]).unwrap();
    assert_eq!(changes.copies.len(), 1);
    assert_eq!(table.free_pages(), 6);
    // Full pages are never written again and stay shared.
    assert_eq!(table.entries()[0], table.entries()[10]);
    // One page too many, however it is spread: nothing changes.
    let before = table.clone();
    let error = table.append(&[13, 10, 9]).unwrap_err();
    assert!(error.is_full() && error.to_string().contains("8 more, want at most 6"), "{error}");
    assert_eq!((table.lengths(), table.entries()), (before.lengths(), before.entries()));
    let error = table.append(&[34, 0, 0]).unwrap_err();
    assert!(error.to_string().contains("41 in sequence 0, want at most 40"), "{error}");
}

/// Keys that are turned when they are appended, queries at the end of them: the same as turning both at once.
#[test]
fn rotation_on_the_way_in_is_rotation_of_the_whole() {
    let Some(engine) = common::gpu::engine("rotation") else { return };
    let mut random = Random(ChaCha8Rng::seed_from_u64(7));
    for interleaved in [false, true] {
        let d = KvCacheDescriptor {
            dim_v: DIM[1],
            pages: Some([9, 8]),
            ..KvCacheDescriptor::new(1, HEADS, DIM[0], 70)
        };
        let mut cache = KvCache::new(&engine, &d).unwrap();
        let (n, turned) = (23_u32, 8);
        let k = random.values((HEADS * n * DIM[0]) as usize);
        let v = random.values((HEADS * n * DIM[1]) as usize);
        let q = random.values((4 * 3 * DIM[0]) as usize);
        let [k_buffer, v_buffer, q_buffer] =
            [&k, &v, &q].map(|x| upload(&engine, &DType::F32.encode(x.iter().copied())));
        let (cos, sin) = rotary_tables(turned, 1e4, RotaryScaling::None, 70);
        let rows =
            NewRows { k: (&k_buffer).into(), v: (&v_buffer).into(), rotary: Some([&cos, &sin]) };
        let descriptor =
            AppendDescriptor { rotary: Some((turned, interleaved)), ..AppendDescriptor::new(n) };
        let append = cache.bind_append(&engine, &descriptor, &rows).unwrap();
        encode(&engine, |encoder| cache.append(encoder, &append, &[n]).unwrap());
        let rotary =
            Rotary { interleaved, at_end: true, keys_from: d.capacity, ..Rotary::new(turned, 70) };
        let plan = engine.plan(&cache.attention(4, 3).rotary(rotary)).unwrap();
        let o = upload(&engine, &vec![0; (4 * 4 * 3 * DIM[1]) as usize]);
        let mut tensors = cache.tensors(&q_buffer, &o);
        tensors.rotary_cos = Some(Table::F32(&cos));
        tensors.rotary_sin = Some(Table::F32(&sin));
        let bound = engine.bind(&plan, &tensors).unwrap();
        encode(&engine, |encoder| bound.encode(encoder));
        let found = DType::F32.decode(&read(&engine, &o));
        // All at once: queries start at position n - 3, keys at 0.
        let whole = Rotary { at_end: false, keys_from: 0, q_start: n - 3, ..rotary };
        let shape = Shape { seq_kv: n, ..plan.problem().attention().shape };
        let plain = Attention::new(shape).causal(Align::BottomRight).rotary(whole);
        let [cos, sin] = [&cos, &sin].map(|x| x.iter().map(|x| f64::from(*x)).collect::<Vec<_>>());
        let operands = Operands { rotary_cos: &cos, rotary_sin: &sin, ..Default::default() };
        let inputs = Inputs { q: &q, k: &k, v: &v, operands };
        let wanted = attend(&plain.validate().unwrap(), &inputs).unwrap();
        let off = found.iter().zip(&wanted.o).position(|(x, y)| (x - y).abs() > 1e-5);
        assert_eq!(off, None, "interleaved {interleaved}");
    }
}
