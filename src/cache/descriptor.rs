//! `KvCacheDescriptor`: what a cache holds, and what of it fits a device.

use crate::error::{Error, Rejection, Result};
use crate::feature::align::Align;
use crate::problem::Attention;
use crate::tensor::{DType, Layout, Shape, Storage, Strides};

/// What a cache holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KvCacheDescriptor {
    /// Sequences, each with a length of its own.
    pub sequences: u32,
    /// Key/value heads.
    pub heads_kv: u32,
    /// Channels of a key.
    pub dim_qk: u32,
    /// Channels of a value.
    pub dim_v: u32,
    /// Most tokens of a sequence.
    pub capacity: u32,
    /// How rows are stored.
    pub storage: Storage,
    /// Pages and the tokens of one; `None` keeps `capacity` tokens of room for each sequence.
    pub pages: Option<[u32; 2]>,
    /// Only the last n tokens are visible to a query, and pages before them are given back. Needs pages: a sequence
    /// holds `window + rows - 1` tokens, its newest `rows` or its newest append (whichever is more), and
    /// what shares a page with them.
    pub window: Option<u32>,
    /// With a window: the most query rows that [`attention`](crate::cache::KvCache::attention) serves, and
    /// the tokens that [`truncate`](crate::cache::KvCache::truncate) can take back however they were
    /// appended. 1, unless a call verifies several drafted tokens. Without a window nothing is given back,
    /// and nothing is bounded.
    pub rows: u32,
}

impl KvCacheDescriptor {
    /// Contiguous, f32, no window, dim_v = dim_qk.
    pub fn new(sequences: u32, heads_kv: u32, dim: u32, capacity: u32) -> Self {
        let (storage, pages, window) = (Storage::F32, None, None);
        let (dim_qk, dim_v) = (dim, dim);
        Self { sequences, heads_kv, dim_qk, dim_v, capacity, storage, pages, window, rows: 1 }
    }

    pub(super) fn validate(&self) -> Result<()> {
        let limits = [
            ("sequences", self.sequences, 1 << 16),
            ("heads_kv", self.heads_kv, 1 << 16),
            ("dim_qk", self.dim_qk, Shape::MAX_DIM),
            ("dim_v", self.dim_v, Shape::MAX_DIM),
            ("capacity", self.capacity, 1 << 24),
            ("rows", self.rows, self.capacity),
        ];
        for (argument, found, most) in limits {
            if found == 0 || found > most {
                return Err(Error::invalid(argument, found, format!("1..={most}")));
            }
        }
        if let Some([pages, page_size]) = self.pages {
            if pages == 0 || pages > 1 << 24 {
                return Err(Error::invalid("pages", pages, "1..=2^24"));
            }
            if page_size == 0 || page_size > 1 << 20 {
                return Err(Error::invalid("page_size", page_size, "1..=2^20"));
            }
        }
        match (self.window, self.pages) {
            (Some(0), _) => Err(Error::invalid("window", 0, "at least 1")),
            (Some(window), None) => {
                Err(Error::invalid("window", window, "pages, which can be given back"))
            }
            _ => Ok(()),
        }
    }

    /// Refuses what `limit` bytes in one binding, or 32 bits of address, cannot hold.
    pub(super) fn check_fits(&self, limit: u64) -> Result<()> {
        let [pages, page_size] = self.extent();
        let row = self.capacity.div_ceil(page_size);
        let words = u64::from(self.sequences) * (2 + u64::from(row));
        let tensor =
            |dim| (self.bytes(dim), u64::from(pages).saturating_mul(self.strides(dim).batch));
        let buffers = [
            ("keys", tensor(self.dim_qk)),
            ("values", tensor(self.dim_v)),
            ("page table", (4 * words, words)),
        ];
        for (candidate, (bytes, units)) in buffers {
            // Buffers are whole multiples of 16 bytes.
            let reason = if bytes.checked_next_multiple_of(16).is_none_or(|bytes| bytes > limit) {
                format!("{bytes} B in one binding, the device allows {limit}")
            } else if units > u64::from(u32::MAX) {
                format!("{units} elements, kernels count to 2^32 - 1")
            } else {
                continue;
            };
            let rejection = Rejection { candidate: candidate.into(), reason };
            return Err(Error::unsupported(format!("a cache of {self:?}"), vec![rejection]));
        }
        Ok(())
    }

    /// Pages and the tokens of one, a page being a sequence's whole room where there are none.
    pub(super) fn extent(&self) -> [u32; 2] {
        self.pages.unwrap_or([self.sequences, self.capacity])
    }

    /// Strides of rows of `dim` channels: heads after one another within a page, pages at whole words.
    pub(super) fn strides(&self, dim: u32) -> Strides {
        let row = u64::from(self.storage.row_units(dim));
        let head = u64::from(self.extent()[1]) * row;
        let batch = (u64::from(self.heads_kv) * head).next_multiple_of(8);
        Strides { batch, head, row }
    }

    /// Bytes of all rows of `dim` channels.
    pub(super) fn bytes(&self, dim: u32) -> u64 {
        self.storage.bytes(u64::from(self.extent()[0]).saturating_mul(self.strides(dim).batch))
    }

    /// A call of `seq_q` query rows against a cache whose page tables have `row` entries a sequence.
    pub(super) fn attention(&self, row: u32, heads_q: u32, seq_q: u32) -> Attention {
        let d = self;
        let shape = Shape {
            batch: d.sequences,
            heads_q,
            heads_kv: d.heads_kv,
            seq_q,
            seq_kv: d.capacity,
            dim_qk: d.dim_qk,
            dim_v: d.dim_v,
        };
        let call = Attention::new(shape).dtype(DType::F32).kv_storage(d.storage).kv_lengths();
        let call = match d.pages {
            Some([pages, size]) => call.paged(pages, size, row),
            None => call,
        };
        let call = Attention {
            layout_k: Layout::Strided(d.strides(d.dim_qk)),
            layout_v: Layout::Strided(d.strides(d.dim_v)),
            ..call.causal(Align::BottomRight)
        };
        match d.window {
            Some(window) => call.window(Some(window - 1), None, Align::BottomRight),
            None => call,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGEST: KvCacheDescriptor = KvCacheDescriptor {
        sequences: 1 << 16,
        heads_kv: 1 << 16,
        dim_qk: Shape::MAX_DIM,
        dim_v: Shape::MAX_DIM,
        capacity: 1 << 24,
        storage: Storage::F32,
        pages: None,
        window: None,
        rows: 1,
    };

    #[test]
    fn the_largest_descriptors_are_refused_by_number() {
        for pages in [None, Some([1 << 24, 1 << 20])] {
            let largest = KvCacheDescriptor { pages, ..LARGEST };
            largest.validate().unwrap();
            assert!(largest.check_fits(u64::MAX).unwrap_err().is_unsupported());
        }
        // Rows that fit, a table of 2^40 entries that does not.
        let table = KvCacheDescriptor { pages: Some([1, 1]), heads_kv: 1, ..LARGEST };
        let error = table.check_fits(1 << 31).unwrap_err().to_string();
        assert!(error.contains("page table: 4398047035392 B in one binding"), "{error}");
        // More elements than 32 bits address, in half as many bytes.
        let int4 = KvCacheDescriptor {
            storage: Storage::Int4,
            pages: Some([1 << 20, 16]),
            sequences: 1,
            heads_kv: 1,
            ..LARGEST
        };
        let error = int4.check_fits(1 << 40).unwrap_err().to_string();
        assert!(error.contains("elements, kernels count to 2^32 - 1"), "{error}");
    }

    #[test]
    fn rows_are_bounded_by_the_capacity() {
        let d = KvCacheDescriptor::new(1, 1, 4, 16);
        for rows in [0, 17, u32::MAX] {
            let error = KvCacheDescriptor { rows, ..d }.validate().unwrap_err();
            assert_eq!(error.to_string(), format!("rows: found {rows}, want 1..=16"));
        }
        KvCacheDescriptor { rows: 16, ..d }.validate().unwrap();
    }
}
