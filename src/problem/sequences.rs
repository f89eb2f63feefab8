//! Where sequences lie that are not padded to one length: packed one after another, keys in pages.

use crate::error::{Error, Result};
use crate::feature::{Parameter, Setting};
use crate::tensor::Shape;

/// Rows of tensors that hold sequences one after another, without padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Packed {
    /// Query rows of all sequences together.
    pub total_q: u32,
    /// Keys of all sequences together; 0 beside key lengths: keys are not packed.
    pub total_kv: u32,
}

/// Keys and values in pages, as a cache keeps them.
///
/// Token t of sequence b is in page `page_table[b][t / page_size]`, at place `t % page_size`. Pages are in any order,
/// and sequences may share them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Paged {
    /// Pages of k and v: `[pages, page_size, heads_kv, dim]`.
    pub pages: u32,
    /// Tokens in a page.
    pub page_size: u32,
    /// Entries of the page table for each sequence.
    pub row: u32,
}

const TOTAL_Q: Parameter = Parameter::u32("total_q");
const TOTAL_KV: Parameter = Parameter::u32("total_kv");

/// What kernels read of packed tensors.
pub(crate) const PACKED_PARAMETERS: &[Parameter] = &[TOTAL_Q, TOTAL_KV];

impl Packed {
    /// A word for names of cases, plans and messages.
    pub(super) fn text(&self) -> String {
        format!("packed({},{})", self.total_q, self.total_kv)
    }

    pub(super) fn validate(&self) -> Result<()> {
        for (name, total) in [("total_q", self.total_q), ("total_kv", self.total_kv)] {
            if total > Shape::MAX_SEQ {
                return Err(Error::invalid(name, total, format!("0..={}", Shape::MAX_SEQ)));
            }
        }
        Ok(())
    }

    pub(super) fn parameters(&self) -> Vec<Setting> {
        vec![TOTAL_Q.is(self.total_q), TOTAL_KV.is(self.total_kv)]
    }
}

pub(crate) const PAGE_ROW: Parameter = Parameter::u32("page_row");
pub(crate) const PAGE_SIZE: Parameter = Parameter::u32("page_size");
pub(crate) const PAGE_COUNT: Parameter = Parameter::u32("page_count");

/// What kernels read of pages.
pub(crate) const PAGED_PARAMETERS: &[Parameter] = &[PAGE_ROW, PAGE_SIZE, PAGE_COUNT];

impl Paged {
    /// A word for names of cases, plans and messages.
    pub(super) fn text(&self) -> String {
        format!("paged({}x{},{})", self.pages, self.page_size, self.row)
    }

    pub(super) fn validate(&self, seq_kv: u32) -> Result<()> {
        if self.page_size == 0 || self.page_size > 1 << 20 {
            return Err(Error::invalid("page_size", self.page_size, "1..=2^20"));
        }
        if self.pages == 0 || self.pages > 1 << 28 {
            return Err(Error::invalid("pages", self.pages, "1..=2^28"));
        }
        let holds = u64::from(self.row) * u64::from(self.page_size);
        if u64::from(seq_kv) > holds || self.row > 1 << 24 {
            let found = format!("{} entries of {} keys", self.row, self.page_size);
            let wanted = format!("at most 2^24 entries that hold seq_kv, {seq_kv}");
            return Err(Error::invalid("page table row", found, wanted));
        }
        Ok(())
    }

    pub(crate) fn parameters(&self) -> Vec<Setting> {
        vec![PAGE_ROW.is(self.row), PAGE_SIZE.is(self.page_size), PAGE_COUNT.is(self.pages)]
    }
}
