//! Random numbers for cases, and the tables that are drawn from them.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::feature::mask::Blocks;
use crate::problem::{Attention, Paged};
use crate::tensor::DType;
use crate::verify::data::{DataOptions, Lengths};

/// A stream of random numbers, and the tables drawn from it.
pub(in crate::verify) struct Draw(ChaCha8Rng);

impl Draw {
    pub(in crate::verify) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Uniform in [0, 1).
    pub(super) fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform in [−1, 1).
    pub(in crate::verify) fn signed(&mut self) -> f64 {
        2.0 * self.unit() - 1.0
    }

    /// Standard normal (Box and Muller).
    pub(super) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Page tables whose pages are in no order, two sequences sharing what both need of the first: entries past a
    /// sequence's length name pages that do not exist, or others'.
    pub(super) fn pages(&mut self, paged: &Paged, lengths: &[u32]) -> Vec<u32> {
        let mut free: Vec<u32> = (0..paged.pages).collect();
        let mut table = Vec::new();
        for (b, length) in lengths.iter().enumerate() {
            let used = length.div_ceil(paged.page_size);
            for i in 0..paged.row {
                let shared = table.get(i as usize).copied().filter(|_| b == 1 && i < used / 2);
                let page = match shared {
                    Some(page) if page < paged.pages => page,
                    _ if i < used => {
                        let at = (self.unit() * free.len() as f64) as usize;
                        // Too few pages are the case's fault, and show as pages that do not exist.
                        if free.is_empty() { u32::MAX } else { free.swap_remove(at) }
                    }
                    _ if i.is_multiple_of(2) => u32::MAX,
                    _ => i % paged.pages,
                };
                table.push(page);
            }
        }
        table
    }

    pub(super) fn length(&mut self, options: &DataOptions, turn: u32, full: u32) -> u32 {
        let part = 1 + (self.unit() * f64::from(full.saturating_sub(1))) as u32;
        match (options.lengths, turn % 3) {
            (Lengths::Zero, _) | (Lengths::Mixed, 1) => 0,
            (Lengths::Full, _) | (Lengths::Mixed, 2) => full,
            _ => part.min(full),
        }
    }

    /// Before and after the top-left diagonal by turns.
    pub(super) fn offset(&mut self, batch: u32, seq_q: u32, seq_kv: u32) -> i32 {
        let part = self.unit();
        if batch.is_multiple_of(2) {
            -1 - (part * f64::from(seq_q) * 0.75) as i32
        } else {
            (part * f64::from(seq_kv)) as i32
        }
    }

    /// A fifth of the entries false, and every seventh row entirely. From 64 keys on by turns 40 rows and
    /// 40 keys that are so, that are hidden, and that are kept, so that there are tiles of each kind.
    pub(super) fn mask(&mut self, shape: [u32; 4]) -> Vec<bool> {
        let keys = shape[3].max(1) as usize;
        let rows = shape[2].max(1) as usize;
        let n = shape.iter().map(|&n| n as usize).product();
        let mut entry = |i: usize| {
            let (row, key) = (i / keys % rows, i % keys);
            let mixed = self.unit() >= 0.2 && (i / keys) % 7 != 5;
            match (keys >= 64, (row / 40 + key / 40) % 3) {
                (true, 1) => false,
                (true, 2) => true,
                _ => mixed,
            }
        };
        (0..n).map(&mut entry).collect()
    }

    /// `count` edges over rows of very different degree, every fifth of them isolated as far as the count
    /// allows; keys rise within a row.
    pub(super) fn edges(&mut self, count: u32, seq_q: u32, seq_kv: u32) -> (Vec<u32>, Vec<u32>) {
        let mut degrees = vec![0_u32; seq_q as usize];
        let mut left = count;
        // Rounds over the rows, until every edge has one; a row has at most every key.
        for round in 0.. {
            let before = left;
            for (row, degree) in degrees.iter_mut().enumerate() {
                let wanted =
                    if row % 5 == 3 && round == 0 { 0 } else { 1 + (self.unit() * 6.0) as u32 };
                let more = wanted.min(left).min(seq_kv - *degree);
                *degree += more;
                left -= more;
            }
            if left == 0 || (left == before && round > 0) {
                break;
            }
        }
        let (mut starts, mut keys) = (vec![0], Vec::new());
        for degree in degrees {
            let mut chosen = std::collections::BTreeSet::new();
            while (chosen.len() as u32) < degree {
                chosen.insert((self.unit() * f64::from(seq_kv)) as u32);
            }
            keys.extend(chosen);
            starts.push(keys.len() as u32);
        }
        (starts, keys)
    }

    /// Ids in runs of uneven length, some of them again later, and one sequence in two backwards.
    pub(super) fn segments(&mut self, batch: u32, seq: u32) -> Vec<u32> {
        let mut ids = Vec::new();
        for b in 0..batch {
            let mut run: Vec<u32> = Vec::with_capacity(seq as usize);
            let mut id = 0;
            for _ in 0..seq {
                id += u32::from(self.unit() < 0.06);
                run.push(id % 5);
            }
            if b % 2 == 1 {
                run.reverse();
            }
            ids.extend(run);
        }
        ids
    }

    /// Trees: mostly nodes below one of the few before them, so that there are long chains and many leaves.
    pub(super) fn parents(&mut self, trees: u32, nodes: u32) -> Vec<i32> {
        let mut parents = Vec::new();
        for node in (0..trees).flat_map(|_| 0..nodes as i32) {
            let root = self.unit() < 0.05;
            let above = 1 + (self.unit() * 4.0) as i32;
            parents.push(if root { -1 } else { (node - above).max(-1) });
        }
        parents
    }

    /// That share of the blocks, marked whole where no mask that is data hides a pair of them.
    pub(super) fn blocks(&mut self, blocks: &Blocks, a: &Attention, density: f64) -> Vec<u32> {
        let s = a.shape;
        let mut drawn = std::collections::HashMap::new();
        let wide = s.seq_q.div_ceil(blocks.rows) * s.seq_kv.div_ceil(blocks.keys);
        for i in 0..u64::from(wide) * u64::from(blocks.batch) * u64::from(blocks.heads) {
            drawn.insert(i, self.unit() < density);
        }
        let across = u64::from(s.seq_kv.div_ceil(blocks.keys));
        let visited = |batch: u32, head: u32, row: u32, key: u32| {
            let table = u64::from(batch) * u64::from(blocks.heads) + u64::from(head);
            let block = u64::from(row / blocks.rows) * across + u64::from(key / blocks.keys);
            drawn[&(table * u64::from(wide) + block)]
        };
        let mut table = blocks.table(&s, visited);
        let plain = a.bias.is_none() && !a.masks.iter().any(|mask| mask.slot().is_data);
        if !(plain && a.custom_masks.is_empty()) {
            table.iter_mut().for_each(|word| *word &= 0x5555_5555);
        }
        table
    }

    /// Normal entries, and −∞ in runs of nine every forty.
    pub(super) fn bias(&mut self, shape: [u32; 4], blocks: bool, dtype: DType) -> Vec<f64> {
        let n = shape.iter().map(|&n| n as usize).product();
        let masked = |i: usize| blocks && i % 40 >= 31;
        let entry = |i: usize| {
            let x = dtype.round(self.normal());
            if masked(i) { f64::NEG_INFINITY } else { x }
        };
        (0..n).map(entry).collect()
    }
}
