//! The key/value cache: what is appended is what calls read, in any storage, contiguous or in pages, turned or not.

#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

#[path = "common/cached.rs"]
mod cached;
mod common;

use cached::{DIM, HEADS, Modelled, Random, descriptor, encode, read, upload};
use heedful::Operands;
use heedful::cache::{AppendDescriptor, KvCache, KvCacheDescriptor, NewRows};
use heedful::reference::Inputs;
use heedful::{Align, Attention, DType, Rotary, RotaryScaling, Shape, Storage, Table};

/// Rows come back as their storage rounds them, and nothing but them is written.
#[test]
fn rows_are_written_where_they_belong_and_nowhere_else() {
    let Some(engine) = common::gpu::engine("rows_are_written") else { return };
    let mut random = Random::new(1);
    for storage in Storage::ALL.iter().copied() {
        for pages in [None, Some([60, 1]), Some([30, 3]), Some([5, 16]), Some([3, 64])] {
            let mut x = Modelled::new(&engine, descriptor(storage, pages), 7);
            assert!(x.append(&engine, &mut random, &[5, 0, 7]));
            let before = x.stored(&engine);
            assert!(x.append(&engine, &mut random, &[1, 7, 3]));
            let stored = x.stored(&engine);
            for (side, bytes) in stored.iter().enumerate() {
                let dim = DIM[side] as usize;
                let mut written = 0;
                for (sequence, tokens) in x.tokens.iter().enumerate() {
                    let found = &x.rows(&stored, sequence as u32)[side];
                    let wanted = (0..HEADS as usize)
                        .flat_map(|h| tokens.iter().map(move |t| &t[side][h * dim..][..dim]));
                    for (found, wanted) in found.iter().zip(wanted) {
                        // A value half way between two integers may go either way.
                        let integers = [Storage::Int8, Storage::Int4].contains(&storage);
                        let quantum = if integers { 0.15 } else { 0.0 };
                        let near = |(x, y): (&f64, &f64)| (x - y).abs() <= quantum;
                        let right = found.iter().zip(wanted).all(near);
                        assert!(right, "{storage} {pages:?} {}", ["k", "v"][side]);
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
    let mut random = Random::new(2);
    for (storage, levels) in [
        (Storage::Int8, 254.0),
        (Storage::Int4, 13.9),
        (Storage::E4m3Row, 16.0),
        (Storage::E5m2Row, 8.0),
        (Storage::Mxfp4, 4.0),
    ] {
        let cache = KvCache::new(&engine, &descriptor(storage, Some([20, 8]))).unwrap();
        let values = random.values((3 * HEADS * 40 * DIM[1]) as usize);
        let buffer = upload(&engine, &DType::F32.encode(values.iter().copied()));
        let rows = NewRows { k: (&buffer).into(), v: (&buffer).into(), rotary: None };
        let mut cache = cache;
        let append = cache.bind_append(&engine, &AppendDescriptor::new(40), &rows).unwrap();
        encode(&engine, |encoder| cache.append(encoder, &append, &[40, 1, 0]).unwrap());
        let found = cache.v_rows(&read(&engine, cache.v()), 0);
        assert_eq!(found.len(), (HEADS * 40) as usize);
        for (row, found) in values.chunks(DIM[1] as usize).zip(&found) {
            let most = row.iter().fold(0.0_f64, |m, x| m.max(x.abs()));
            for (x, y) in row.iter().zip(found) {
                assert!((x - y).abs() <= most / levels * (1.0 + 1e-5), "{storage}: {x} became {y}");
            }
        }
    }
}

/// Keys that are turned when they are appended, queries at the end of them: the same as turning both at once.
#[test]
fn rotation_on_the_way_in_is_rotation_of_the_whole() {
    let Some(engine) = common::gpu::engine("rotation") else { return };
    let mut random = Random::new(7);
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
        let (cos, sin) = RotaryScaling::None.tables(turned, 1e4, 70).unwrap();
        let rows =
            NewRows { k: (&k_buffer).into(), v: (&v_buffer).into(), rotary: Some([&cos, &sin]) };
        let descriptor =
            AppendDescriptor { rotary: Some((turned, interleaved)), ..AppendDescriptor::new(n) };
        let append = cache.bind_append(&engine, &descriptor, &rows).unwrap();
        encode(&engine, |encoder| cache.append(encoder, &append, &[n]).unwrap());
        let rotary =
            Rotary { interleaved, at_end: true, keys_from: d.capacity, ..Rotary::new(turned, 70) };
        let plan = engine.plan(&cache.attention(4, 3).unwrap().rotary(rotary)).unwrap();
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
        let wanted = plain.validate().unwrap().reference(&inputs).unwrap();
        let off = found.iter().zip(&wanted.o).position(|(x, y)| (x - y).abs() > 1e-5);
        assert_eq!(off, None, "interleaved {interleaved}");
    }
}
