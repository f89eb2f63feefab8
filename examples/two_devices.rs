//! One call over two devices: each holds half of the keys, their results are joined by their log-sum-exp.
//!
//! With one adapter both halves run on it, through two devices that share nothing.
//!
//! `cargo run --example two_devices`

use heedful::device::Readback;
use heedful::reference::Inputs;
use heedful::{Attention, DType, Engine, MergeStates, Result, Shape, wgpu};

#[path = "shared/mod.rs"]
mod shared;

const KEYS: usize = 3000;

fn upload(engine: &Engine, values: &[f64]) -> wgpu::Buffer {
    let usage =
        wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let bytes = DType::F32.encode(values.iter().copied());
    let size = bytes.len() as u64;
    let descriptor = wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
    let buffer = engine.device().create_buffer(&descriptor);
    engine.queue().write_buffer(&buffer, 0, &bytes);
    buffer
}

fn main() -> Result<()> {
    let found = pollster::block_on(Engine::adapters());
    let Some(first) = found.first() else {
        println!("no adapter: nothing to split over");
        return Ok(());
    };
    let engines = [first, found.get(1).unwrap_or(first)];
    let shape = Shape {
        batch: 1,
        heads_q: 8,
        heads_kv: 2,
        seq_q: 4,
        seq_kv: KEYS as u32,
        dim_qk: 64,
        dim_v: 64,
    };
    let rows = shape.rows() as usize;
    let q = shared::noise(1, rows * 64);
    let [k, v] = [2, 3].map(|seed| shared::noise(seed, 2 * KEYS * 64));

    // A third of the keys on one device, the others on the other; each returns o and its log-sum-exp.
    let (mut parts_o, mut parts_lse) = (Vec::new(), Vec::new());
    for (adapter, keys) in engines.iter().zip([0..KEYS / 3, KEYS / 3..KEYS]) {
        let engine = Engine::with_adapter_blocking(adapter)?;
        let half = Attention::new(Shape { seq_kv: keys.len() as u32, ..shape }).with_lse();
        let part = |values: &[f64]| -> Vec<f64> {
            values
                .chunks(KEYS * 64)
                .flat_map(|head| &head[keys.start * 64..keys.end * 64])
                .copied()
                .collect()
        };
        let (k, v) = (part(&k), part(&v));
        let inputs = Inputs { q: &q, k: &k, v: &v, operands: Default::default() };
        let outputs = engine.run_host(&engine.plan(&half)?, &inputs)?;
        println!("keys {keys:?} on {}", engine.capabilities().name);
        parts_o.extend(outputs.o);
        parts_lse.extend(outputs.lse);
    }

    let engine = Engine::with_adapter_blocking(first)?;
    let merge = MergeStates { parts: 2, rows: rows as u32, dim_v: 64, dtype: DType::F32 };
    let (o_parts, lse_parts) = (upload(&engine, &parts_o), upload(&engine, &parts_lse));
    let (o, lse) = (upload(&engine, &vec![0.0; rows * 64]), upload(&engine, &vec![0.0; rows]));
    let inputs = [(&o_parts).into(), (&lse_parts).into()];
    let bound = engine.bind_merge(&merge, inputs, [(&o).into(), (&lse).into()])?;
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    bound.encode(&mut encoder);
    let back = Readback::record(engine.device(), &mut encoder, &o, 0, o.size())?;
    engine.queue().submit([encoder.finish()]);
    let joined = DType::F32.decode(&back.read_blocking()?);

    let inputs = Inputs { q: &q, k: &k, v: &v, operands: Default::default() };
    let wanted = Attention::new(shape).validate()?.reference(&inputs)?.o;
    let error = joined.iter().zip(&wanted).map(|(x, e)| (x - e).abs()).fold(0.0, f64::max);
    println!("joined, against all {KEYS} keys at once in float64: differs by at most {error:.1e}");
    assert!(error < 1e-5, "the halves do not make the whole");
    Ok(())
}
