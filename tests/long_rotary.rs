//! Rotary positions far out: tables of a million rows, of which calls and appends bind what they read.

#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod common;

use heedful::Operands;
use heedful::cache::{AppendDescriptor, KvCache, KvCacheDescriptor, NewRows};
use heedful::device::Readback;
use heedful::plan::Capabilities;
use heedful::reference::Inputs;
use heedful::verify::truth::Truth;
use heedful::{
    Attention, Engine, Plan, Policy, Rotary, RotaryScaling, Shape, Storage, Table, Tensors, wgpu,
};

const HALF: usize = 64;
const MILLION: u32 = 1_000_000;

/// Cosines and sines of `rows` positions, all 0 but for the last few.
fn tables(rows: u32, last: u32) -> [Vec<f32>; 2] {
    let mut tables = [0, 1].map(|_| vec![0.0_f32; rows as usize * HALF]);
    for position in rows - last..rows {
        for m in 0..HALF {
            let angle = f64::from(position) * 1e4_f64.powf(-(m as f64) / HALF as f64);
            tables[0][position as usize * HALF + m] = angle.cos() as f32;
            tables[1][position as usize * HALF + m] = angle.sin() as f32;
        }
    }
    tables
}

fn wave(n: u64, step: f64) -> Vec<f64> {
    (0..n).map(|i| f64::from(((i as f64 * step).sin() * 1.5) as f32)).collect()
}

fn buffer(engine: &Engine, bytes: &[u8]) -> wgpu::Buffer {
    let usage =
        wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let size = (bytes.len() as u64).next_multiple_of(16).max(16);
    let descriptor = wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
    let buffer = engine.device().create_buffer(&descriptor);
    engine.queue().write_buffer(&buffer, 0, bytes);
    buffer
}

fn words(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|x| (*x as f32).to_le_bytes()).collect()
}

fn read(
    engine: &Engine,
    record: impl FnOnce(&mut wgpu::CommandEncoder),
    from: &wgpu::Buffer,
) -> Vec<u8> {
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    record(&mut encoder);
    let back = Readback::record(engine.device(), &mut encoder, from, 0, from.size()).unwrap();
    engine.queue().submit([encoder.finish()]);
    back.read_blocking().unwrap()
}

fn limited(bytes: u64) -> Option<Engine> {
    let adapters = pollster::block_on(Engine::adapters());
    let required_limits =
        wgpu::Limits { max_storage_buffer_binding_size: bytes, ..wgpu::Limits::default() };
    let descriptor = wgpu::DeviceDescriptor { required_limits, ..Default::default() };
    let (device, queue) =
        pollster::block_on(adapters.first()?.request_device(&descriptor)).unwrap();
    Some(Engine::from_wgpu(device, queue))
}

/// Rows 1 000 000 to 1 000 004 against keys around them, by start and by position ids on the host, which need
/// not be the whole table's.
#[test]
fn a_call_at_a_million_is_the_reference() {
    let Some(engine) = common::gpu::engine("a_call_at_a_million_is_the_reference") else { return };
    let shape = Shape { seq_kv: 7, ..Shape::self_attention(1, 2, 5, 128) };
    let rotary =
        Rotary { q_start: MILLION, k_start: MILLION - 2, ..Rotary::new(128, MILLION + 10) };
    let by_ids = Rotary { ids: true, keys_from: 2, ..rotary };
    let ids: Vec<u32> = (0..5).map(|i| MILLION + 3 - i).collect();
    let [cos, sin] = tables(MILLION + 10, 20);
    let wide = [&cos, &sin].map(|table| -> Vec<f64> {
        // Untouched pages of zeros take no memory.
        let mut wide = vec![0.0; table.len()];
        let from = table.len() - 20 * HALF;
        wide[from..].iter_mut().zip(&table[from..]).for_each(|(w, x)| *w = f64::from(*x));
        wide
    });
    let [nq, nk, nv, no] = shape.elements();
    let (q, k, v) = (wave(nq, 0.7), wave(nk, 1.3), wave(nv, 2.9));
    for rotary in [rotary, by_ids] {
        let attention = Attention::new(shape).rotary(rotary).with_lse();
        let positions: &[u32] = if rotary.ids { &ids } else { &[] };
        let operands = Operands {
            rotary_cos: &wide[0],
            rotary_sin: &wide[1],
            positions,
            ..Operands::default()
        };
        let problem = attention.validate().unwrap();
        let truth = Truth::measure(&problem, &Inputs { q: &q, k: &k, v: &v, operands }).unwrap();
        let plan = engine.plan(&attention).unwrap();
        let [bq, bk, bv] = [&q, &k, &v].map(|x| buffer(&engine, &words(x)));
        let (o, lse) = (buffer(&engine, &vec![0; 4 * no as usize]), buffer(&engine, &[0; 64]));
        let mut tensors = Tensors::new(&bq, &bk, &bv, &o);
        tensors.lse = Some((&lse).into());
        tensors.rotary_cos = Some(Table::F32(&cos));
        tensors.rotary_sin = Some(Table::F32(&sin));
        tensors.positions = rotary.ids.then_some(Table::U32(&ids));
        let bound = engine.bind(&plan, &tensors).unwrap();
        let bytes = read(&engine, |encoder| bound.encode(encoder), &o);
        let found: Vec<f64> = bytes
            .chunks_exact(4)
            .map(|x| f64::from(f32::from_le_bytes(x.try_into().unwrap())))
            .take(no as usize)
            .collect();
        let comparison = truth.check_o(&found);
        assert!(comparison.pass, "{rotary:?}: {}", comparison.message());
        // The angles matter: without them the result is another.
        let plain = Attention::new(shape).validate().unwrap();
        let other = plain
            .reference(&Inputs { q: &q, k: &k, v: &v, operands: Operands::default() })
            .unwrap();
        assert!(!truth.check_o(&other.o).pass);
    }
}

#[test]
fn tables_that_no_binding_holds_are_refused_by_name() {
    let shape = Shape { seq_kv: MILLION, ..Shape::self_attention(1, 1, 1, 128) };
    let rotary = Rotary { keys_from: MILLION, at_end: true, ..Rotary::new(128, MILLION) };
    let by_length = Attention::new(shape).kv_lengths().rotary(rotary).validate().unwrap();
    let caps = Capabilities { max_binding_bytes: 1 << 27, ..Capabilities::default() };
    let error = Plan::new(&by_length, &caps, &Policy::default()).unwrap_err();
    assert!(error.to_string().contains("rotary tables of 512000000 B"), "{error}");
    // Without lengths the position is known, and one row is enough.
    let known = Attention::new(shape).rotary(rotary).validate().unwrap();
    let error = Plan::new(&known, &caps, &Policy::default()).err().map(|error| error.to_string());
    assert!(error.is_none_or(|error| !error.contains("rotary")));

    let Some(engine) = limited(1 << 16) else { return };
    let shape = Shape::self_attention(1, 1, 2, 128);
    let rotary = Rotary { ids: true, ..Rotary::new(128, 200) };
    let plan = engine.plan(&Attention::new(shape).rotary(rotary)).unwrap();
    let [q, k, v, o] = [0; 4].map(|_| buffer(&engine, &[0; 1024]));
    let ids = buffer(&engine, &[0; 16]);
    let [cos, sin] = [0, 1].map(|_| vec![0.5; 200 * HALF]);
    let mut tensors = Tensors::new(&q, &k, &v, &o);
    tensors.rotary_cos = Some(Table::F32(&cos));
    tensors.rotary_sin = Some(Table::F32(&sin));
    tensors.positions = Some(Table::Buffer((&ids).into()));
    let error = engine.bind(&plan, &tensors).unwrap_err();
    assert_eq!(error.argument(), Some("rotary tables"), "{error}");
    tensors.positions = Some(Table::U32(&[3, 199]));
    let error = engine.bind(&plan, &tensors).unwrap_err();
    assert_eq!(error.argument(), Some("rotary tables"), "{error}");
    tensors.positions = Some(Table::U32(&[190, 199]));
    assert!(engine.bind(&plan, &tensors).is_ok());
}

/// Angles in several bindings give the keys that one gives.
#[test]
fn an_append_turns_keys_by_angles_that_do_not_fit_one_binding() {
    let Some(whole) = common::gpu::engine("an_append_turns_keys") else { return };
    let Some(parts) = limited(1 << 16) else { return };
    const CAPACITY: u32 = 4096;
    let source = wave(1024 * 12, 0.37);
    let (cos, sin) = RotaryScaling::None.tables(12, 1e4, CAPACITY).expect("tables");
    let keys = |engine: &Engine| {
        let descriptor = KvCacheDescriptor {
            storage: Storage::Int4,
            ..KvCacheDescriptor::new(1, 1, 12, CAPACITY)
        };
        let mut cache = KvCache::new(engine, &descriptor).unwrap();
        let rows = buffer(engine, &words(&source));
        let new = NewRows { k: (&rows).into(), v: (&rows).into(), rotary: Some([&cos, &sin]) };
        let append = AppendDescriptor { rotary: Some((12, false)), ..AppendDescriptor::new(1024) };
        let append = cache.bind_append(engine, &append, &new).unwrap();
        for _ in 0..4 {
            let mut encoder = engine.device().create_command_encoder(&Default::default());
            cache.append(&mut encoder, &append, &[1024]).unwrap();
            engine.queue().submit([encoder.finish()]);
        }
        let bytes = read(engine, |_| {}, cache.k());
        cache.k_rows(&bytes, 0)
    };
    let [one, several] = [&whole, &parts].map(keys);
    assert_eq!(one.len(), CAPACITY as usize);
    assert!(one == several, "keys differ");
    assert_ne!(one[0], one[1024], "the same row at two places is turned differently");
}
