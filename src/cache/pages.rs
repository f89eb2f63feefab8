//! Which pages hold which tokens: the host's side of a cache, without a GPU.
//!
//! Every change is checked in full before anything changes, so that a refused one loses nothing.

use std::collections::HashMap;

use crate::error::{Error, Result};

/// A table entry that names no page.
pub const NO_PAGE: u32 = u32::MAX;

/// What a change asks of the device: words of the page table, and pages to be copied before they are written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// (index into the page table, its new entry)
    pub entries: Vec<(u32, u32)>,
    /// (from, to)
    pub copies: Vec<[u32; 2]>,
}

/// Pages of sequences: lengths, tables, who shares what, what is free.
///
/// A page that several sequences share is copied when one of them writes to it.
#[derive(Debug, Clone)]
pub struct PageTable {
    page_size: u32,
    row: u32,
    capacity: u32,
    window: Option<u32>,
    /// Each sequence has the page of its own number for ever, and forks copy it.
    fixed: bool,
    lengths: Vec<u32>,
    entries: Vec<u32>,
    /// Sequences that hold each page.
    holders: Vec<u32>,
    free: Vec<u32>,
    /// Entries at the front of each sequence whose pages were given back, since no window reaches them.
    dropped: Vec<u32>,
}

impl PageTable {
    /// Sequences of at most `capacity` tokens over `pages` pages. With a `window` of n, pages that hold nothing but
    /// tokens n or more before the newest query are given back.
    pub fn paged(
        sequences: u32,
        capacity: u32,
        page_size: u32,
        pages: u32,
        window: Option<u32>,
    ) -> Self {
        let row = capacity.div_ceil(page_size.max(1));
        Self {
            page_size: page_size.max(1),
            row,
            capacity,
            window,
            fixed: false,
            lengths: vec![0; sequences as usize],
            entries: vec![NO_PAGE; sequences as usize * row as usize],
            holders: vec![0; pages as usize],
            // Taken from the back: low pages first.
            free: (0..pages).rev().collect(),
            dropped: vec![0; sequences as usize],
        }
    }

    /// Sequences with room for `capacity` tokens each.
    pub fn contiguous(sequences: u32, capacity: u32) -> Self {
        let mut table = Self::paged(sequences, capacity, capacity, sequences, None);
        table.fixed = true;
        table.entries = (0..sequences).collect();
        table.holders.fill(1);
        table.free.clear();
        table
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

    /// Makes room for `counts[i]` more tokens in sequence i, and counts them.
    ///
    /// # Errors
    /// Invalid argument when there are not as many counts as sequences; full when a sequence would pass its capacity or
    /// the pages do not suffice. Nothing changes then.
    pub fn append(&mut self, counts: &[u32]) -> Result<Changes> {
        if counts.len() != self.lengths.len() {
            return Err(Error::invalid("counts", counts.len(), self.lengths.len()));
        }
        self.check_room(counts)?;
        let mut changes = Changes::default();
        for sequence in 0..counts.len() {
            self.drop_unseen(sequence, &mut changes);
        }
        for (sequence, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            self.grow(sequence, *count, &mut changes);
        }
        Ok(changes)
    }

    /// Forgets the tokens of a sequence from `length` on.
    ///
    /// # Errors
    /// Invalid argument when there is no such sequence, it is shorter, or a window needs tokens that were given back.
    pub fn truncate(&mut self, sequence: u32, length: u32) -> Result<Changes> {
        let i = self.checked(sequence)?;
        if length > self.lengths[i] {
            let wanted = format!("at most its {} tokens", self.lengths[i]);
            return Err(Error::invalid("length", length, wanted));
        }
        // By the last token that is left.
        let first_seen = self.window.map_or(0, |window| length.saturating_sub(window));
        if length > 0 && self.dropped[i] * self.page_size > first_seen {
            let found = format!("{length}, of which a window sees {first_seen} and later");
            let wanted =
                format!("a length whose window starts at {}", self.dropped[i] * self.page_size);
            return Err(Error::invalid("length", found, wanted));
        }
        let mut changes = Changes::default();
        if !self.fixed {
            for entry in length.div_ceil(self.page_size)..self.row {
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
        for entry in 0..self.row {
            let page = self.entries[source * self.row as usize + entry as usize];
            if page != NO_PAGE {
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

    fn check_room(&self, counts: &[u32]) -> Result<()> {
        let mut needed = 0_u64;
        // Sequences that write to a page which others hold, by page.
        let mut writers: HashMap<u32, u32> = HashMap::new();
        for (i, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let length = self.lengths[i];
            if count > self.capacity - length {
                let wanted = format!("at most {} tokens", self.capacity);
                let found = format!("{} in sequence {i}", u64::from(length) + u64::from(count));
                return Err(Error::full("the cache's capacity", found, wanted));
            }
            if self.fixed {
                continue;
            }
            let pages = |length: u32| length.div_ceil(self.page_size);
            needed += u64::from(pages(length + count) - pages(length));
            let last = self
                .entry(i, length / self.page_size)
                .filter(|_| !length.is_multiple_of(self.page_size));
            if let Some(page) = last {
                *writers.entry(page).or_default() += 1;
            }
        }
        for (page, writers) in writers {
            // The last holder need not copy.
            needed += u64::from(writers.min(self.holders[page as usize] - 1));
        }
        let free = self.free.len() as u64 + self.unseen_pages();
        if needed > free {
            let wanted = format!("at most {free}, which are free");
            return Err(Error::full("the cache's pages", format!("{needed} more"), wanted));
        }
        Ok(())
    }

    /// The page of an entry.
    fn entry(&self, sequence: usize, entry: u32) -> Option<u32> {
        let page = *self.entries.get(sequence * self.row as usize + entry as usize)?;
        (page != NO_PAGE).then_some(page)
    }

    /// Entries of a sequence that no window of a new query reaches.
    fn unseen(&self, sequence: usize) -> std::ops::Range<u32> {
        let window = self.window.unwrap_or(u32::MAX);
        let first_seen = (self.lengths[sequence].saturating_add(1)).saturating_sub(window);
        let first = self.dropped[sequence];
        first..(first_seen / self.page_size).max(first)
    }

    /// Pages that dropping what is unseen gives back, at least.
    fn unseen_pages(&self) -> u64 {
        let alone = |i: usize, entry: u32| {
            self.entry(i, entry).is_some_and(|page| self.holders[page as usize] == 1)
        };
        let of = |i: usize| self.unseen(i).filter(|entry| alone(i, *entry)).count() as u64;
        (0..self.lengths.len()).map(of).sum()
    }

    fn drop_unseen(&mut self, sequence: usize, changes: &mut Changes) {
        let unseen = self.unseen(sequence);
        for entry in unseen.clone() {
            self.release(sequence, entry, changes);
        }
        self.dropped[sequence] = unseen.end;
    }

    fn grow(&mut self, sequence: usize, count: u32, changes: &mut Changes) {
        let length = self.lengths[sequence];
        self.lengths[sequence] += count;
        if self.fixed {
            return;
        }
        let last = length / self.page_size;
        if let (Some(page), true) =
            (self.entry(sequence, last), !length.is_multiple_of(self.page_size))
            && self.holders[page as usize] > 1
        {
            self.holders[page as usize] -= 1;
            let own = self.take(sequence, last, changes);
            changes.copies.push([page, own]);
        }
        for entry in length.div_ceil(self.page_size)..(length + count).div_ceil(self.page_size) {
            self.take(sequence, entry, changes);
        }
    }

    /// Gives an entry a free page.
    fn take(&mut self, sequence: usize, entry: u32, changes: &mut Changes) -> u32 {
        // `check_room` counted them.
        let page = self.free.pop().unwrap_or(NO_PAGE);
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
        self.set(sequence, entry, NO_PAGE, changes);
    }

    fn set(&mut self, sequence: usize, entry: u32, page: u32, changes: &mut Changes) {
        let index = sequence * self.row as usize + entry as usize;
        self.entries[index] = page;
        changes.entries.push((index as u32, page));
    }
}
