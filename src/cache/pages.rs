//! Which pages hold which tokens: the host's side of a cache, without a GPU.
//!
//! Every change is checked in full before anything changes, so that a refused one loses nothing.

use std::collections::HashMap;
use std::ops::Range;

use crate::error::{Error, Result};

/// What a change asks of the device: words of the page table, and pages to be copied before they are written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// (index into the page table, its new entry)
    pub entries: Vec<(u32, u32)>,
    /// (from, to)
    pub copies: Vec<[u32; 2]>,
    /// What the entries, and all lengths and counts of dropped entries, were before.
    before: [Vec<u32>; 3],
}

/// Most entries of all sequences together, and most pages.
const MOST: u64 = 1 << 28;

/// Pages of sequences: lengths, tables, who shares what, what is free.
///
/// A page that several sequences share is copied when one of them writes to it.
///
/// With a window, a page is given back when its sequence is appended to and no call can ask for it any more. By
/// `[n, rows]`, calls at a length of L ask for the tokens from L - (n + rows - 1) on. An append that makes
/// L tokens L' keeps what they ask for at L and, where that is less, at L' - rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageTable {
    page_size: u32,
    row: u32,
    capacity: u32,
    window: Option<[u32; 2]>,
    /// Each sequence has the page of its own number for ever, and forks copy it.
    fixed: bool,
    lengths: Vec<u32>,
    entries: Vec<u32>,
    /// Sequences that hold each page.
    holders: Vec<u32>,
    free: Vec<u32>,
    /// Entries at the front of each sequence whose pages were given back, since no call can ask for them.
    dropped: Vec<u32>,
}

impl PageTable {
    /// A table entry that names no page.
    pub const NO_PAGE: u32 = u32::MAX;

    /// Sequences of at most `capacity` tokens over `pages` pages. With a `window` of `[n, rows]`, a query
    /// sees the last n tokens up to its own, and calls are of at most `rows` query rows or of the newest
    /// append's.
    ///
    /// # Errors
    /// Invalid argument: a page or a window of nothing; more than 2^28 pages, or entries over all sequences.
    pub fn paged(
        sequences: u32,
        capacity: u32,
        page_size: u32,
        pages: u32,
        window: Option<[u32; 2]>,
    ) -> Result<Self> {
        if page_size == 0 {
            return Err(Error::invalid("page_size", 0, "at least 1"));
        }
        if let Some(window) = window.filter(|window| window.contains(&0)) {
            return Err(Error::invalid(
                "window",
                format!("{window:?}"),
                "at least 1 token and row",
            ));
        }
        let row = capacity.div_ceil(page_size);
        let entries = u64::from(sequences) * u64::from(row.max(1));
        for (argument, found) in [("page table entries", entries), ("pages", pages.into())] {
            if found > MOST {
                return Err(Error::invalid(argument, found, "at most 2^28"));
            }
        }
        Ok(Self {
            page_size,
            row,
            capacity,
            window,
            fixed: false,
            lengths: vec![0; sequences as usize],
            entries: vec![Self::NO_PAGE; sequences as usize * row as usize],
            holders: vec![0; pages as usize],
            // Taken from the back: low pages first.
            free: (0..pages).rev().collect(),
            dropped: vec![0; sequences as usize],
        })
    }

    /// Sequences with room for `capacity` tokens each.
    ///
    /// # Errors
    /// Invalid argument: no capacity; more than 2^28 sequences.
    pub fn contiguous(sequences: u32, capacity: u32) -> Result<Self> {
        if capacity == 0 {
            return Err(Error::invalid("capacity", 0, "at least 1"));
        }
        let mut table = Self::paged(sequences, capacity, capacity, sequences, None)?;
        table.fixed = true;
        table.entries = (0..sequences).collect();
        table.holders.fill(1);
        table.free.clear();
        Ok(table)
    }

    /// Tokens of each sequence.
    pub fn lengths(&self) -> &[u32] {
        &self.lengths
    }

    /// Entries of all sequences, [`row`](Self::row) of each.
    pub fn entries(&self) -> &[u32] {
        &self.entries
    }

    /// Entries of a sequence.
    pub fn row(&self) -> u32 {
        self.row
    }

    /// Pages that no sequence holds.
    pub fn free_pages(&self) -> u32 {
        self.free.len() as u32
    }

    /// Makes room for `counts[i]` more tokens in sequence i, and counts them. Pages of a sequence that no call can ask
    /// for any more are given back when it gets tokens.
    ///
    /// # Errors
    /// Invalid argument when there are not as many counts as sequences; full when a sequence would pass its capacity or
    /// the pages do not suffice. Nothing changes then.
    pub fn append(&mut self, counts: &[u32]) -> Result<Changes> {
        if counts.len() != self.lengths.len() {
            return Err(Error::invalid("counts", counts.len(), self.lengths.len()));
        }
        self.check_capacity(counts)?;
        if !self.fixed {
            self.check_pages(counts)?;
        }
        let mut changes = self.no_changes();
        for (sequence, count) in growing(counts) {
            self.drop_unasked(sequence, count, &mut changes);
        }
        for (sequence, count) in growing(counts) {
            self.grow(sequence, count, &mut changes);
        }
        Ok(changes)
    }

    /// Forgets the tokens of a sequence from `length` on.
    ///
    /// With a window of `[n, rows]` any length can be had that still holds what calls there ask for: 0, the
    /// length before the newest append that gave it tokens or any after it, and up to `rows` fewer than it
    /// ever had.
    ///
    /// # Errors
    /// Invalid argument when there is no such sequence, it is shorter, or a window needs tokens that were given back.
    /// Nothing changes then.
    pub fn truncate(&mut self, sequence: u32, length: u32) -> Result<Changes> {
        let i = self.checked(sequence)?;
        let longest = self.lengths[i];
        let shortest = self.shortest(i);
        if length > longest {
            let wanted = format!("at most its {longest} tokens");
            return Err(Error::invalid("length", length, wanted));
        }
        if length > 0 && u64::from(length) < shortest {
            let wanted = format!(
                "0 or {shortest}..={longest}: tokens that a window sees from earlier were given back"
            );
            return Err(Error::invalid("length", length, wanted));
        }
        let mut changes = self.no_changes();
        if !self.fixed {
            for entry in length.div_ceil(self.page_size)..longest.div_ceil(self.page_size) {
                self.release(i, entry, &mut changes);
            }
        }
        self.lengths[i] = length;
        if length == 0 {
            self.dropped[i] = 0;
        }
        Ok(changes)
    }

    /// Makes sequence `to` the same as `from`; pages are shared until one of the two writes to them.
    ///
    /// # Errors
    /// Invalid argument when there is no such sequence, or both are one.
    pub fn fork(&mut self, from: u32, to: u32) -> Result<Changes> {
        let (source, target) = (self.checked(from)?, self.checked(to)?);
        if source == target {
            return Err(Error::invalid("to", to, "another sequence than `from`"));
        }
        let mut changes = self.truncate(to, 0)?;
        self.lengths[target] = self.lengths[source];
        self.dropped[target] = self.dropped[source];
        if self.fixed {
            changes.copies.push([from, to]);
            return Ok(changes);
        }
        for entry in self.dropped[source]..self.lengths[source].div_ceil(self.page_size) {
            if let Some(page) = self.entry(source, entry) {
                self.holders[page as usize] += 1;
                self.set(target, entry, page, &mut changes);
            }
        }
        Ok(changes)
    }

    fn checked(&self, sequence: u32) -> Result<usize> {
        if (sequence as usize) < self.lengths.len() {
            return Ok(sequence as usize);
        }
        let wanted = format!("below {}", self.lengths.len());
        Err(Error::invalid("sequence", sequence, wanted))
    }

    fn check_capacity(&self, counts: &[u32]) -> Result<()> {
        for (i, count) in growing(counts) {
            let length = self.lengths[i];
            if count > self.capacity - length {
                let wanted = format!("at most {} tokens", self.capacity);
                let found = format!("{} in sequence {i}", u64::from(length) + u64::from(count));
                return Err(Error::full("the cache's capacity", found, wanted));
            }
        }
        Ok(())
    }

    fn check_pages(&self, counts: &[u32]) -> Result<()> {
        let mut needed = 0_u64;
        // By page, sequences that let it go and sequences that write to it.
        let (mut leavers, mut writers) = (HashMap::<u32, u32>::new(), HashMap::<u32, u32>::new());
        for (i, count) in growing(counts) {
            let length = self.lengths[i];
            for page in self.unasked(i, count).filter_map(|entry| self.entry(i, entry)) {
                *leavers.entry(page).or_default() += 1;
            }
            let pages = |length: u32| length.div_ceil(self.page_size);
            needed += u64::from(pages(length + count) - pages(length));
            if let Some(page) = self.begun(i) {
                *writers.entry(page).or_default() += 1;
            }
        }
        let left = |page: &u32| self.holders[*page as usize] - leavers.get(page).unwrap_or(&0);
        for (page, writers) in &writers {
            // The last holder need not copy.
            needed += u64::from((*writers).min(left(page) - 1));
        }
        let given_back = leavers.keys().filter(|page| left(page) == 0).count();
        let free = (self.free.len() + given_back) as u64;
        if needed > free {
            let wanted = format!("at most {free}, which are free");
            return Err(Error::full("the cache's pages", format!("{needed} more"), wanted));
        }
        Ok(())
    }

    /// The page that the next token of a sequence shares with tokens before it.
    fn begun(&self, sequence: usize) -> Option<u32> {
        let length = self.lengths[sequence];
        let within = !length.is_multiple_of(self.page_size);
        self.entry(sequence, length / self.page_size).filter(|_| within)
    }

    /// The page of an entry.
    fn entry(&self, sequence: usize, entry: u32) -> Option<u32> {
        let page = *self.entries.get(sequence * self.row as usize + entry as usize)?;
        (page != Self::NO_PAGE).then_some(page)
    }

    /// Tokens before the end of a sequence that calls there ask for.
    fn reach(&self) -> Option<u64> {
        self.window.map(|[n, rows]| u64::from(n) + u64::from(rows) - 1)
    }

    /// The shortest length above 0 to which a sequence can be truncated.
    fn shortest(&self, sequence: usize) -> u64 {
        let first_held = u64::from(self.dropped[sequence]) * u64::from(self.page_size);
        self.reach().filter(|_| first_held > 0).map_or(1, |reach| first_held + reach)
    }

    /// Entries of a sequence that no call can ask for once it has `count` more tokens, and these stay.
    fn unasked(&self, sequence: usize, count: u32) -> Range<u32> {
        let first = self.dropped[sequence];
        let (Some(reach), Some([_, rows])) = (self.reach(), self.window) else {
            return first..first;
        };
        let length = self.lengths[sequence];
        let back_to = length.min((length + count).saturating_sub(rows));
        // Below `back_to`, so it fits.
        let first_asked = u64::from(back_to).saturating_sub(reach) as u32;
        first..(first_asked / self.page_size).max(first)
    }

    fn drop_unasked(&mut self, sequence: usize, count: u32, changes: &mut Changes) {
        let unasked = self.unasked(sequence, count);
        for entry in unasked.clone() {
            self.release(sequence, entry, changes);
        }
        self.dropped[sequence] = unasked.end;
    }

    fn grow(&mut self, sequence: usize, count: u32, changes: &mut Changes) {
        let length = self.lengths[sequence];
        let begun = self.begun(sequence);
        self.lengths[sequence] += count;
        if self.fixed {
            return;
        }
        if let Some(page) = begun
            && self.holders[page as usize] > 1
        {
            self.holders[page as usize] -= 1;
            let own = self.take(sequence, length / self.page_size, changes);
            changes.copies.push([page, own]);
        }
        for entry in length.div_ceil(self.page_size)..(length + count).div_ceil(self.page_size) {
            self.take(sequence, entry, changes);
        }
    }

    /// Gives an entry a free page.
    fn take(&mut self, sequence: usize, entry: u32, changes: &mut Changes) -> u32 {
        // `check_pages` counted them.
        let page = self.free.pop().unwrap_or(Self::NO_PAGE);
        if let Some(holders) = self.holders.get_mut(page as usize) {
            *holders = 1;
        }
        self.set(sequence, entry, page, changes);
        page
    }

    fn release(&mut self, sequence: usize, entry: u32, changes: &mut Changes) {
        let Some(page) = self.entry(sequence, entry) else { return };
        self.holders[page as usize] -= 1;
        if self.holders[page as usize] == 0 {
            self.free.push(page);
        }
        self.set(sequence, entry, Self::NO_PAGE, changes);
    }

    fn set(&mut self, sequence: usize, entry: u32, page: u32, changes: &mut Changes) {
        let index = sequence * self.row as usize + entry as usize;
        let before = std::mem::replace(&mut self.entries[index], page);
        changes.before[0].push(before);
        changes.entries.push((index as u32, page));
    }

    fn no_changes(&self) -> Changes {
        let before = [Vec::new(), self.lengths.clone(), self.dropped.clone()];
        Changes { before, ..Changes::default() }
    }

    /// Takes back the newest change, which the device did not get.
    pub(super) fn undo(&mut self, changes: Changes) {
        let [entries, lengths, dropped] = changes.before;
        for ((at, _), before) in changes.entries.iter().zip(entries).rev() {
            self.entries[*at as usize] = before;
        }
        (self.lengths, self.dropped) = (lengths, dropped);
        if self.fixed {
            return;
        }
        self.holders.fill(0);
        self.entries.iter().filter(|page| **page != Self::NO_PAGE).for_each(|page| {
            self.holders[*page as usize] += 1;
        });
        let pages = (0..self.holders.len() as u32).rev();
        self.free = pages.filter(|page| self.holders[*page as usize] == 0).collect();
    }
}

/// Sequences that get tokens, and how many.
fn growing(counts: &[u32]) -> impl Iterator<Item = (usize, u32)> {
    counts.iter().copied().enumerate().filter(|(_, count)| *count > 0)
}
