//! A cache over many steps: appended, forked, truncated and asked, with windows and without, beside a model
//! that forgets nothing.

#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

#[path = "common/cached.rs"]
mod cached;
mod common;

use cached::{DIM, HEADS, Modelled, Random, descriptor, encode, read, upload};
use heedful::cache::{AppendDescriptor, KvCache, KvCacheDescriptor, NewRows};
use heedful::{Engine, Storage, Table};

/// 3 sequences of 70 tokens at most, with a window.
fn windowed(pages: [u32; 2], window: u32, rows: u32) -> KvCacheDescriptor {
    KvCacheDescriptor { window: Some(window), rows, ..descriptor(Storage::F32, Some(pages)) }
}

/// One random step; which kind it was, and whether it was refused.
fn step(x: &mut Modelled, engine: &Engine, random: &mut Random) -> (usize, bool) {
    match random.below(8) {
        0..=3 => {
            let counts = [0, 1, 2].map(|_| random.below(6));
            (0, !x.append(engine, random, &counts))
        }
        4 => {
            x.fork(engine, random.below(3), random.below(3));
            (1, false)
        }
        5 => {
            let sequence = random.below(3);
            let length = x.held[sequence as usize].length;
            assert!(!x.truncate(engine, sequence, length + 1));
            let length = match random.below(3) {
                0 => random.below(length + 1),
                _ => length.saturating_sub(random.below(8)),
            };
            (2, !x.truncate(engine, sequence, length))
        }
        6 => {
            let d = x.cache.descriptor();
            let seq_q = 1 + random.below(if d.window.is_some() { d.rows } else { 4 });
            x.attend(engine, random, seq_q);
            (3, false)
        }
        _ => {
            x.attend_newest(engine, random);
            (4, false)
        }
    }
}

#[test]
fn ten_thousand_random_steps_agree_with_a_plain_model() {
    let Some(engine) = common::gpu::engine("ten_thousand") else { return };
    let cases = [
        (descriptor(Storage::F32, Some([40, 4])), 2500),
        (descriptor(Storage::F16, Some([90, 1])), 1500),
        (descriptor(Storage::F32, None), 1500),
        (windowed([14, 4], 8, 1), 1500),
        (windowed([16, 4], 8, 4), 1500),
        (windowed([25, 1], 2, 3), 1000),
        (windowed([5, 16], 70, 5), 500),
    ];
    for (seed, (descriptor, steps)) in (3..).zip(cases) {
        let mut random = Random::new(seed);
        let mut x = Modelled::new(&engine, descriptor, 5);
        let (mut done, mut refused) = ([0; 5], [0; 5]);
        for i in 0..steps {
            let (kind, was_refused) = step(&mut x, &engine, &mut random);
            done[kind] += 1;
            refused[kind] += u32::from(was_refused);
            if i % 8 == 0 {
                x.check_rows(&engine);
            }
        }
        println!("{descriptor:?}: {done:?} steps, {refused:?} refused");
        assert!(refused[0] > 20 && done.iter().all(|n| *n > 30), "{done:?} {refused:?}");
        // Windows that are shorter than the sequences refuse to go back for ever.
        let gives_back = descriptor.window.is_some_and(|n| n < 70);
        assert_eq!(refused[2] > 20, gives_back, "{refused:?}");
        encode(&engine, |encoder| {
            (0..3).for_each(|sequence| x.cache.reset(encoder, sequence).unwrap());
        });
        assert_eq!(x.cache.free_pages(), descriptor.pages.map_or(0, |[n, _]| n), "a page leaked");
    }
}

#[test]
fn windows_give_old_pages_back_and_see_the_rest() {
    let Some(engine) = common::gpu::engine("windows") else { return };
    let mut random = Random::new(6);
    // Without giving pages back, 3 sequences of 70 tokens would need 54 pages of 4.
    let mut x = Modelled::new(&engine, windowed([15, 4], 9, 1), 5);
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
        let wanted = "length: found 20, want 0 or 65..=69: tokens that a window sees from earlier";
        assert!(error.to_string().starts_with(wanted), "{error}");
    });
    x.attend(&engine, &mut random, 1);
    assert!(x.truncate(&engine, 1, 59));
    x.attend(&engine, &mut random, 1);
}

/// Tokens came one at a time, and the call has more query rows than one.
#[test]
fn a_call_of_several_rows_sees_all_their_keys_or_is_refused() {
    let Some(engine) = common::gpu::engine("several_rows") else { return };
    let mut random = Random::new(10);
    for rows in 1..=5 {
        let mut x = Modelled::new(&engine, windowed([30, 4], 8, rows), 1);
        for _ in 0..23 {
            assert!(x.append(&engine, &mut random, &[1, 1, 1]));
            x.attend(&engine, &mut random, rows);
        }
        let error = x.cache.attention(2 * HEADS, rows + 1).unwrap_err();
        assert_eq!(error.argument(), Some("seq_q"));
        let found = format!("seq_q: found {}, want at most {rows}, the cache's `rows`", rows + 1);
        assert!(error.to_string().starts_with(&found), "{error}");
    }
    // Nothing is given back without a window.
    let x = Modelled::new(&engine, descriptor(Storage::F32, Some([30, 4])), 1);
    x.attend(&engine, &mut random, 9);
}

/// Drafted tokens are appended at once, and all or some of them are taken back.
#[test]
fn drafts_can_be_taken_back_wherever_pages_end() {
    let Some(engine) = common::gpu::engine("drafts") else { return };
    let mut random = Random::new(11);
    let mut x = Modelled::new(&engine, windowed([30, 4], 8, 5), 5);
    while x.cache.lengths().iter().all(|n| *n < 60) {
        let before = x.cache.lengths().to_vec();
        assert!(x.append(&engine, &mut random, &[5, 4, 5]));
        x.attend(&engine, &mut random, 5);
        x.attend_newest(&engine, &mut random);
        // All of them are wrong, then one to four are right; the next draft follows at once.
        for accepted in [[0, 0, 0], [1, 4, 3]] {
            for (sequence, n) in (0..).zip(accepted) {
                let length = before[sequence as usize] + n;
                assert!(x.truncate(&engine, sequence, length), "{:?}", x.held);
            }
            x.attend(&engine, &mut random, 5);
            x.attend_newest(&engine, &mut random);
            if accepted[0] == 0 {
                assert!(x.append(&engine, &mut random, &[5, 4, 5]));
            }
        }
    }
    // A prompt that is longer than what is kept can be taken back whole, too; and a draft that came one by one.
    let mut x = Modelled::new(&engine, windowed([60, 4], 8, 3), 30);
    assert!(x.append(&engine, &mut random, &[30, 17, 1]));
    assert!(x.append(&engine, &mut random, &[26, 30, 30]));
    x.attend_newest(&engine, &mut random);
    assert!(x.truncate(&engine, 0, 40), "part of the prompt");
    x.attend_newest(&engine, &mut random);
    x.attend(&engine, &mut random, 3);
    (0..3).zip([30, 17, 1]).for_each(|(i, n)| assert!(x.truncate(&engine, i, n)));
    x.attend(&engine, &mut random, 3);
    (0..3).for_each(|_| assert!(x.append(&engine, &mut random, &[1, 1, 1])));
    (0..3).zip([30, 17, 1]).for_each(|(i, n)| assert!(x.truncate(&engine, i, n)));
    x.attend(&engine, &mut random, 3);
}

/// A sequence that gets no tokens keeps what its newest query sees, whoever else does.
#[test]
fn a_window_moves_with_its_own_sequence_only() {
    let Some(engine) = common::gpu::engine("own_sequence") else { return };
    let mut random = Random::new(12);
    let mut x = Modelled::new(&engine, windowed([20, 1], 2, 1), 2);
    assert!(x.append(&engine, &mut random, &[2, 2, 0]));
    x.attend(&engine, &mut random, 1);
    for _ in 0..4 {
        assert!(x.append(&engine, &mut random, &[1, 0, 0]));
        x.attend(&engine, &mut random, 1);
        x.check_rows(&engine);
    }
}

/// Whatever is refused leaves host and GPU as they were.
#[test]
fn a_refused_change_changes_nothing() {
    let Some(engine) = common::gpu::engine("refused_change") else { return };
    let mut random = Random::new(13);
    for descriptor in [windowed([9, 4], 5, 2), descriptor(Storage::F32, None)] {
        let other = Modelled::new(&engine, descriptor, 5);
        let mut x = Modelled::new(&engine, descriptor, 70);
        for _ in 0..4 {
            assert!(x.append(&engine, &mut random, &[5, 2, 3]));
        }
        x.fork(&engine, 0, 1);
        let Table::Buffer(state) = x.cache.counts() else { unreachable!() };
        let state = state.buffer.clone();
        let look = |x: &Modelled| {
            let stored = x.stored(&engine);
            (x.cache.lengths().to_vec(), x.cache.free_pages(), stored, read(&engine, &state))
        };
        let before = look(&x);
        let (most, n) = (u32::MAX, x.cache.lengths()[0]);
        encode(&engine, |encoder| {
            let c = &mut x.cache;
            let refused: [&[u32]; 8] = [
                &[70, 0, 0],
                &[51, 0, 0],
                &[0, 0, most],
                &[most, most, most],
                &[1, 1],
                &[],
                &[1, 1, 1, 1],
                &[0, 71, 0],
            ];
            for counts in refused {
                let error = c.append(encoder, &x.append, counts).unwrap_err();
                assert!(error.is_full() || error.argument() == Some("counts"), "{error}");
            }
            if descriptor.pages.is_some() {
                assert!(c.append(encoder, &x.append, &[20, 20, 20]).unwrap_err().is_full());
                assert!(c.truncate(encoder, 0, 3).unwrap_err().is_invalid());
            }
            let error = c.append(encoder, &other.append, &[1, 1, 1]).unwrap_err();
            assert_eq!(error.argument(), Some("append"));
            for (sequence, length) in [(3, 0), (most, most), (0, n + 1), (1, most)] {
                assert!(c.truncate(encoder, sequence, length).unwrap_err().is_invalid());
            }
            assert!(c.reset(encoder, most).unwrap_err().is_invalid());
            for (from, to) in [(0, 0), (3, 3), (0, 3), (3, 0), (most, 0), (0, most)] {
                assert!(c.fork(encoder, from, to).unwrap_err().is_invalid());
            }
        });
        assert!(look(&x) == before, "{descriptor:?}");
        assert!(x.cache.k_rows(&[], most).is_empty());
        assert!(x.cache.k_rows(&[0; 7], 0).is_empty());
        x.attend(&engine, &mut random, 2);
        // Nothing to append is something that can be done, and changes no length.
        assert!(x.append(&engine, &mut random, &[0, 0, 0]));
        assert_eq!(x.cache.lengths(), before.0);
        x.attend(&engine, &mut random, 2);
        x.attend_newest(&engine, &mut random);
    }
}

/// A device that gives no memory, here because it is gone, leaves the host's side as it was.
#[test]
fn a_change_that_the_device_refuses_is_taken_back() {
    for pages in [Some([20, 4]), None] {
        let Some(engine) = common::gpu::engine("refuses") else { return };
        let mut random = Random::new(15);
        let window = pages.map(|_| 5);
        let descriptor = KvCacheDescriptor { window, ..descriptor(Storage::F32, pages) };
        let mut x = Modelled::new(&engine, descriptor, 5);
        (0..4).for_each(|_| assert!(x.append(&engine, &mut random, &[5, 2, 3])));
        x.fork(&engine, 0, 1);
        let bytes = read(&engine, x.cache.k());
        let look = |cache: &KvCache| {
            let rows = [0, 1, 2].map(|sequence| cache.k_rows(&bytes, sequence));
            (cache.lengths().to_vec(), cache.free_pages(), rows)
        };
        let before = look(&x.cache);
        let mut encoder = engine.device().create_command_encoder(&Default::default());
        engine.device().destroy();
        for _ in 0..2 {
            let c = &mut x.cache;
            assert!(c.append(&mut encoder, &x.append, &[5, 5, 4]).unwrap_err().is_device_lost());
            assert!(c.truncate(&mut encoder, 1, 18).unwrap_err().is_device_lost());
            assert!(c.reset(&mut encoder, 0).unwrap_err().is_device_lost());
            assert!(c.fork(&mut encoder, 0, 2).unwrap_err().is_device_lost());
            assert!(look(c) == before, "{descriptor:?}");
        }
    }
}

/// No number that a descriptor can hold is a panic, and what a device cannot hold is refused before it is asked.
#[test]
fn caches_of_any_numbers_are_made_or_refused() {
    let Some(engine) = common::gpu::engine("any_numbers") else { return };
    let small = KvCacheDescriptor::new(1, 1, 4, 8);
    let values = [0, 1, 7, 1 << 16, 1 << 20, 1 << 24, u32::MAX];
    for a in values {
        for b in values {
            let descriptors = [
                KvCacheDescriptor { sequences: a, capacity: b, pages: Some([1, 1]), ..small },
                KvCacheDescriptor { sequences: a, heads_kv: b, ..small },
                KvCacheDescriptor { dim_qk: a, dim_v: b, ..small },
                KvCacheDescriptor { capacity: a, heads_kv: b, ..small },
                KvCacheDescriptor { pages: Some([a, b]), heads_kv: 1 << 16, ..small },
                KvCacheDescriptor { pages: Some([2, 2]), window: Some(a), rows: b, ..small },
            ];
            for descriptor in descriptors {
                let cache = match KvCache::new(&engine, &descriptor) {
                    Ok(cache) => cache,
                    Err(e) => {
                        let known = e.is_invalid() || e.is_unsupported() || e.is_out_of_memory();
                        assert!(known, "{descriptor:?}: {e}");
                        continue;
                    }
                };
                for rows in values {
                    let _ = cache.attention(rows, rows).map(|call| call.validate());
                    let _ = cache.attention_of_append(rows, rows).validate();
                }
            }
        }
    }
    // A window of more than any sequence holds hides nothing.
    let wide = KvCacheDescriptor { window: Some(u32::MAX), rows: 4, ..windowed([30, 4], 1, 1) };
    let mut x = Modelled::new(&engine, wide, 5);
    let mut random = Random::new(14);
    (0..5).for_each(|_| assert!(x.append(&engine, &mut random, &[5, 4, 0])));
    x.attend(&engine, &mut random, 4);
    let buffer = upload(&engine, &[0; 4 * 5 * 3 * 2 * DIM[1] as usize]);
    let rows = NewRows { k: (&buffer).into(), v: (&buffer).into(), rotary: None };
    for rows_at_once in [0, 71, u32::MAX] {
        let append = AppendDescriptor::new(rows_at_once);
        let error = x.cache.bind_append(&engine, &append, &rows).unwrap_err();
        assert_eq!(error.argument(), Some("rows"));
    }
}
