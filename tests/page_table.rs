//! Page tables on the host alone: what is shared, copied, given back, and refused.

#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

use std::collections::HashMap;

use heedful::cache::{Changes, PageTable};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

#[test]
fn shared_pages_are_copied_by_the_first_that_writes() {
    let mut table = PageTable::paged(3, 40, 4, 10, None).unwrap();
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

/// Tokens by page and place, as a device would have them after the changes so far.
struct Device {
    pages: Vec<Vec<u32>>,
    entries: Vec<u32>,
    /// Tokens of each sequence, all of them.
    tokens: Vec<Vec<u32>>,
    next: u32,
}

impl Device {
    fn apply(&mut self, changes: &Changes) {
        for (at, page) in &changes.entries {
            self.entries[*at as usize] = *page;
        }
        for [from, to] in &changes.copies {
            self.pages[*to as usize] = self.pages[*from as usize].clone();
        }
    }

    fn append(&mut self, counts: &[u32], page_size: usize) {
        let row = self.entries.len() / counts.len();
        for (i, count) in counts.iter().enumerate() {
            for _ in 0..*count {
                let place = self.tokens[i].len();
                let page = self.entries[i * row + place / page_size];
                self.pages[page as usize][place % page_size] = self.next;
                self.tokens[i].push(self.next);
                self.next += 1;
            }
        }
    }

    /// Every token of a page that is there is the sequence's own, and those from `asked` on are there.
    fn check(&self, page_size: usize, asked: impl Fn(usize) -> usize) {
        let row = self.entries.len() / self.tokens.len();
        for (i, tokens) in self.tokens.iter().enumerate() {
            let asked = asked(i);
            for (place, token) in tokens.iter().enumerate() {
                match self.entries[i * row + place / page_size] {
                    PageTable::NO_PAGE => {
                        assert!(place < asked, "sequence {i} lost {place}, has {asked}..");
                    }
                    page => assert_eq!(self.pages[page as usize][place % page_size], *token),
                }
            }
        }
    }
}

/// Pages that the sequences need once they have `counts` more tokens, whatever was given back before that.
fn pages_after(before: &PageTable, after_drop: &[u32], counts: &[u32], page_size: u32) -> usize {
    let row = before.row() as usize;
    let mut holders: HashMap<u32, (u32, u32)> = HashMap::new();
    let mut fresh = 0;
    for (i, (length, count)) in before.lengths().iter().zip(counts).enumerate() {
        let entries = &before.entries()[i * row..][..row];
        for (e, page) in entries.iter().enumerate().skip(after_drop[i] as usize) {
            if *page != PageTable::NO_PAGE {
                let writes =
                    *count > 0 && length % page_size != 0 && length / page_size == e as u32;
                let (held, written) = holders.entry(*page).or_default();
                *held += 1;
                *written += u32::from(writes);
            }
        }
        fresh += ((length + count).div_ceil(page_size) - length.div_ceil(page_size)) as usize;
    }
    // All that write need a page each; those that do not share the old one.
    let of = |(held, written): &(u32, u32)| (*written + u32::from(written < held)) as usize;
    holders.values().map(of).sum::<usize>() + fresh
}

#[test]
fn random_changes_keep_what_can_be_asked_for_and_nothing_is_refused_in_vain() {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut below = |n: u32| (random.next_u64() % u64::from(n)) as u32;
    let (mut full, mut refused, mut done) = (0, 0, 0);
    for case in 0..300 {
        let (sequences, capacity) = (1 + below(4), 30 + below(30));
        let (page_size, pages) = (1 + below(6), 6 + below(30));
        let window = (case % 4 != 0).then(|| [1 + below(12), 1 + below(5)]);
        let mut table = PageTable::paged(sequences, capacity, page_size, pages, window).unwrap();
        let n = sequences as usize;
        let mut device = Device {
            pages: vec![vec![0; page_size as usize]; pages as usize],
            entries: table.entries().to_vec(),
            tokens: vec![Vec::new(); n],
            next: 1,
        };
        // What calls may ask for before anything else is appended, by sequence.
        let reach =
            |length: u32| window.map_or(0, |[n, rows]| (length + 1).saturating_sub(n + rows));
        let mut dropped = vec![0; n];
        for _ in 0..120 {
            let before = table.clone();
            let sequence = below(sequences);
            let i = sequence as usize;
            match below(8) {
                0..=4 => {
                    let counts: Vec<u32> = (0..n).map(|_| below(7).saturating_sub(1)).collect();
                    let mut next = dropped.clone();
                    for (i, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
                        let length = table.lengths()[i];
                        let rows = window.map_or(0, |[_, rows]| rows);
                        let back_to = length.min((length + count).saturating_sub(rows));
                        next[i] = next[i].max(reach(back_to) / page_size);
                    }
                    let too_long = table
                        .lengths()
                        .iter()
                        .zip(&counts)
                        .any(|(length, n)| length + n > capacity);
                    let fits = !too_long
                        && pages_after(&table, &next, &counts, page_size) <= pages as usize;
                    match table.append(&counts) {
                        Ok(changes) => {
                            assert!(fits);
                            device.apply(&changes);
                            device.append(&counts, page_size as usize);
                            dropped = next;
                            done += 1;
                        }
                        Err(error) => {
                            assert!(error.is_full() && !fits, "{error}");
                            assert_eq!(table, before);
                            full += 1;
                        }
                    }
                }
                5 => {
                    let to = below(sequences);
                    match table.fork(sequence, to) {
                        Ok(changes) => {
                            device.apply(&changes);
                            device.tokens[to as usize] = device.tokens[i].clone();
                            dropped[to as usize] = dropped[i];
                        }
                        Err(_) => assert_eq!((sequence, &table), (to, &before)),
                    }
                }
                _ => {
                    let length = table.lengths()[i].saturating_sub(below(9));
                    let there = length == 0 || reach(length) >= dropped[i] * page_size;
                    match table.truncate(sequence, length) {
                        Ok(changes) => {
                            assert!(there || dropped[i] == 0);
                            device.apply(&changes);
                            device.tokens[i].truncate(length as usize);
                            dropped[i] = if length == 0 { 0 } else { dropped[i] };
                        }
                        Err(_) => {
                            assert!(!there && dropped[i] > 0);
                            assert_eq!(table, before);
                            refused += 1;
                        }
                    }
                }
            }
            assert_eq!(device.entries, table.entries());
            device.check(page_size as usize, |i| reach(table.lengths()[i]) as usize);
            let held: std::collections::HashSet<_> =
                device.entries.iter().filter(|page| **page != PageTable::NO_PAGE).collect();
            assert_eq!(held.len() + table.free_pages() as usize, pages as usize);
        }
    }
    println!("{done} appended, {full} full, {refused} truncations refused");
    assert!(full > 1000 && refused > 100 && done > 5000, "{full} {refused} {done}");
}

/// A page that only sequences hold which let it go is room for what they append.
#[test]
fn pages_that_forks_share_are_room_once_all_let_them_go() {
    let mut table = PageTable::paged(2, 40, 1, 5, Some([2, 1])).unwrap();
    table.append(&[3, 0]).unwrap();
    table.fork(0, 1).unwrap();
    assert_eq!(table.free_pages(), 2);
    // Each keeps two tokens and gets two: four new pages, of which both give the first one back.
    let error = table.append(&[2, 2]).unwrap_err();
    assert!(error.to_string().contains("4 more, want at most 3"), "{error}");
    table.append(&[2, 1]).unwrap();
    assert_eq!(table.free_pages(), 0);
}

#[test]
fn no_number_is_a_panic() {
    let values = [0, 1, 3, 1 << 16, 1 << 28, u32::MAX - 1, u32::MAX];
    for a in values {
        for b in values {
            for window in [None, Some([a, b]), Some([u32::MAX; 2])] {
                let large = [(2, a, b, 4), (a, 16, 1 << 8, 4), (2, 8, a, 3), (1, u32::MAX, a, 2)];
                for (sequences, capacity, page_size, pages) in large {
                    if u64::from(sequences) * u64::from(capacity) / u64::from(page_size).max(1)
                        > 1 << 20
                        && u64::from(sequences) * u64::from(capacity.div_ceil(page_size.max(1)))
                            <= 1 << 28
                    {
                        continue; // fits, in more memory than a test should take
                    }
                    let Ok(mut table) =
                        PageTable::paged(sequences, capacity, page_size, pages, window)
                    else {
                        continue;
                    };
                    let n = sequences as usize;
                    for count in values {
                        let before = table.clone();
                        if table.append(&vec![count; n]).is_err() {
                            assert_eq!(table, before);
                        }
                        let _ = table.truncate(a, count);
                        let _ = table.truncate(0, count.min(5));
                        let _ = table.fork(0, a);
                    }
                }
            }
            let _ = (a <= 1 << 16)
                .then(|| PageTable::contiguous(a, b).map(|mut table| table.append(&[])));
        }
    }
    assert!(PageTable::paged(1 << 16, 1 << 24, 1, 1, None).unwrap_err().is_invalid());
    assert!(PageTable::contiguous(u32::MAX, 1).unwrap_err().is_invalid());
}
