//! A cache beside a plain model of it, which keeps every token and knows what a window may have given back.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

use heedful::Operands;
use heedful::cache::{Append, AppendDescriptor, KvCache, KvCacheDescriptor, NewRows};
use heedful::device::Readback;
use heedful::reference::Inputs;
use heedful::{Attention, DType, Engine, Layout, Shape, Storage, wgpu};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

pub const HEADS: u32 = 2;
pub const DIM: [u32; 2] = [12, 20];

pub fn upload(engine: &Engine, bytes: &[u8]) -> wgpu::Buffer {
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

pub fn read(engine: &Engine, buffer: &wgpu::Buffer) -> Vec<u8> {
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    let back = Readback::record(engine.device(), &mut encoder, buffer, 0, buffer.size()).unwrap();
    engine.queue().submit([encoder.finish()]);
    back.read_blocking().unwrap()
}

pub fn encode(engine: &Engine, record: impl FnOnce(&mut wgpu::CommandEncoder)) {
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    record(&mut encoder);
    engine.queue().submit([encoder.finish()]);
}

pub struct Random(ChaCha8Rng);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    pub fn below(&mut self, n: u32) -> u32 {
        (self.0.next_u64() % u64::from(n)) as u32
    }

    pub fn values(&mut self, n: usize) -> Vec<f64> {
        let value = |x: u64| (x >> 40) as f64 / f64::from(1 << 23) - 1.0;
        (0..n).map(|_| DType::F32.round(value(self.0.next_u64()))).collect()
    }
}

/// What a window makes of a sequence, told by tokens alone.
#[derive(Debug, Clone, Default)]
pub struct Held {
    pub length: u32,
    /// The first token whose page is still there.
    pub first: u32,
    /// Length before the newest append that gave it tokens.
    pub before: u32,
    /// Longest since it was empty.
    pub longest: u32,
    /// New rows of the newest append that are left.
    pub newest: u32,
}

impl Held {
    pub fn append(&mut self, count: u32, window: Option<[u32; 2]>, page: u32) {
        self.newest = count;
        if count == 0 {
            return;
        }
        self.before = self.length;
        self.length += count;
        self.longest = self.longest.max(self.length);
        if let Some([n, rows]) = window {
            // Taken back by `rows` tokens or by the append, then asked for `rows` rows: the first sees n tokens.
            let query =
                i64::from(self.before.min(self.length.saturating_sub(rows))) - i64::from(rows);
            let seen = (query + 1 - i64::from(n)).max(0) as u32;
            self.first = self.first.max(seen / page * page);
        }
    }

    /// Whether a sequence may go back to a length.
    pub fn may_truncate(&self, length: u32, window: Option<[u32; 2]>) -> bool {
        if length > self.length {
            return false;
        }
        let [n, rows] = window.unwrap_or([1, 1]);
        let may = length == 0 || self.first == 0 || length + 1 >= self.first + n + rows;
        let promised = length == 0 || length >= self.before || length + rows >= self.longest;
        assert!(may || !promised, "{self:?} to {length}");
        may
    }

    pub fn truncate(&mut self, length: u32) {
        self.newest = self.newest.saturating_sub(self.length - length);
        self.length = length;
        self.before = self.before.min(length);
        if length == 0 {
            *self = Self::default();
        }
    }

    /// Every key that the newest `rows` rows see is there.
    pub fn check_seen(&self, rows: u32, window: Option<[u32; 2]>) {
        let Some([n, _]) = window else { return };
        for query in self.length.saturating_sub(rows)..self.length {
            let seen = (query + 1).saturating_sub(n);
            assert!(seen >= self.first, "row at {query} of {self:?} sees {seen}");
        }
    }
}

/// A cache, the buffers that new rows come from, and a model of what it should hold.
pub struct Modelled {
    pub cache: KvCache,
    pub append: Append,
    sources: [wgpu::Buffer; 2],
    rows: u32,
    /// Per sequence and token: rows of keys and of values, `[heads_kv * dim]`. Nothing is given back here.
    pub tokens: Vec<Vec<[Vec<f64>; 2]>>,
    pub held: Vec<Held>,
}

impl Modelled {
    pub fn new(engine: &Engine, descriptor: KvCacheDescriptor, rows: u32) -> Self {
        let cache = KvCache::new(engine, &descriptor).unwrap();
        let n = descriptor.sequences * HEADS * rows;
        let sources = DIM.map(|dim| upload(engine, &vec![0; (4 * n * dim) as usize]));
        let new = NewRows { k: (&sources[0]).into(), v: (&sources[1]).into(), rotary: None };
        let append = cache.bind_append(engine, &AppendDescriptor::new(rows), &new).unwrap();
        let tokens = vec![Vec::new(); descriptor.sequences as usize];
        let held = vec![Held::default(); descriptor.sequences as usize];
        Self { cache, append, sources, rows, tokens, held }
    }

    fn window(&self) -> Option<[u32; 2]> {
        let d = self.cache.descriptor();
        d.window.map(|n| [n, d.rows])
    }

    /// Appends random rows; whether there was room.
    pub fn append(&mut self, engine: &Engine, random: &mut Random, counts: &[u32]) -> bool {
        let sequences = counts.len();
        let rows = self.rows as usize;
        let drawn = DIM.map(|dim| random.values(sequences * HEADS as usize * rows * dim as usize));
        for (buffer, values) in self.sources.iter().zip(&drawn) {
            engine.queue().write_buffer(buffer, 0, &DType::F32.encode(values.iter().copied()));
        }
        let mut full = false;
        encode(engine, |encoder| {
            let before = (self.cache.lengths().to_vec(), self.cache.free_pages());
            match self.cache.append(encoder, &self.append, counts) {
                Ok(()) => {}
                Err(error) => {
                    assert!(error.is_full(), "{error}");
                    assert_eq!((self.cache.lengths().to_vec(), self.cache.free_pages()), before);
                    full = true;
                }
            }
        });
        if full {
            return false;
        }
        let storage = self.cache.descriptor().storage;
        let (window, page) = (self.window(), self.cache.descriptor().pages.map_or(1, |[_, n]| n));
        for (sequence, count) in counts.iter().enumerate() {
            self.held[sequence].append(*count, window, page);
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

    /// Truncates a sequence where that can be done; whether it could.
    pub fn truncate(&mut self, engine: &Engine, sequence: u32, length: u32) -> bool {
        let i = sequence as usize;
        let may = self.held[i].may_truncate(length, self.window());
        encode(engine, |encoder| {
            let done = self.cache.truncate(encoder, sequence, length);
            assert_eq!(done.is_ok(), may, "{:?} to {length}: {done:?}", self.held[i]);
        });
        if may {
            self.held[i].truncate(length);
            self.tokens[i].truncate(length as usize);
        }
        may
    }

    pub fn fork(&mut self, engine: &Engine, from: u32, to: u32) {
        encode(engine, |encoder| {
            assert_eq!(self.cache.fork(encoder, from, to).is_ok(), from != to);
        });
        self.tokens[to as usize] = self.tokens[from as usize].clone();
        self.held[to as usize] = self.held[from as usize].clone();
    }

    /// Compares a call of the newest `seq_q` rows with the reference on the model.
    pub fn attend(&self, engine: &Engine, random: &mut Random, seq_q: u32) {
        self.held.iter().for_each(|held| held.check_seen(seq_q, self.window()));
        self.compare(engine, random, &self.cache.attention(2 * HEADS, seq_q).unwrap());
    }

    /// The same for the newest append's rows.
    pub fn attend_newest(&self, engine: &Engine, random: &mut Random) {
        self.held.iter().for_each(|held| held.check_seen(held.newest, self.window()));
        self.compare(engine, random, &self.cache.attention_of_append(2 * HEADS, self.rows));
    }

    fn compare(&self, engine: &Engine, random: &mut Random, call: &Attention) {
        let d = *self.cache.descriptor();
        let plan = engine.plan(call).unwrap();
        let q = random.values(plan.problem().operands()[0].1 as usize);
        let q_buffer = upload(engine, &DType::F32.encode(q.iter().copied()));
        let o = upload(engine, &vec![0; 4 * call.shape.elements()[3] as usize]);
        let mut tensors = self.cache.tensors(&q_buffer, &o);
        tensors.q_lengths = call.q_lengths.then(|| self.cache.counts());
        let bound = engine.bind(&plan, &tensors).unwrap();
        encode(engine, |encoder| bound.encode(encoder));
        let found = DType::F32.decode(&read(engine, &o));
        // The same call on what the model holds, without pages.
        let longest = self.tokens.iter().map(Vec::len).max().unwrap_or(0) as u32;
        let shape = Shape { seq_kv: longest, ..call.shape };
        let plain = Attention { shape, paged: None, kv_storage: None, ..call.clone() };
        let plain = plain.layout(Layout::Bhsd);
        let (k, v) = (self.laid(0, longest), self.laid(1, longest));
        let kv_lengths: Vec<u32> = self.held.iter().map(|held| held.length).collect();
        assert_eq!(self.cache.lengths(), kv_lengths);
        let q_lengths: Vec<u32> = self.held.iter().map(|held| held.newest).collect();
        let operands =
            Operands { kv_lengths: &kv_lengths, q_lengths: &q_lengths, ..Default::default() };
        let inputs = Inputs { q: &q, k: &k, v: &v, operands };
        let wanted = plain.validate().unwrap().reference(&inputs).unwrap();
        let near =
            found.iter().zip(&wanted.o).position(|(x, y)| (x - y).abs() > 1e-5 || x.is_nan());
        assert_eq!(near, None, "{d:?} {}, {:?}", plan.kernels()[0], self.held);
    }

    /// Keys or values of all sequences, `[sequences, heads_kv, longest, dim]`.
    fn laid(&self, side: usize, longest: u32) -> Vec<f64> {
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
    }

    /// The bytes of keys and of values.
    pub fn stored(&self, engine: &Engine) -> [Vec<u8>; 2] {
        [self.cache.k(), self.cache.v()].map(|buffer| read(engine, buffer))
    }

    /// The keys of a sequence in these bytes, and the values.
    pub fn rows(&self, stored: &[Vec<u8>; 2], sequence: u32) -> [Vec<Vec<f64>>; 2] {
        [self.cache.k_rows(&stored[0], sequence), self.cache.v_rows(&stored[1], sequence)]
    }

    /// What the cache holds is what the model says is not given back, no more and no less.
    pub fn check_rows(&self, engine: &Engine) {
        let stored = self.stored(engine);
        for (i, tokens) in self.tokens.iter().enumerate() {
            let held = &tokens[self.held[i].first as usize..];
            let wanted = [0, 1].map(|side| {
                let dim = DIM[side] as usize;
                (0..HEADS as usize)
                    .flat_map(|h| held.iter().map(move |t| t[side][h * dim..][..dim].to_vec()))
                    .collect::<Vec<_>>()
            });
            assert!(self.rows(&stored, i as u32) == wanted, "{:?}", self.held);
        }
    }
}

pub fn descriptor(storage: Storage, pages: Option<[u32; 2]>) -> KvCacheDescriptor {
    let base = KvCacheDescriptor::new(3, HEADS, DIM[0], 70);
    KvCacheDescriptor { dim_v: DIM[1], storage, pages, ..base }
}
