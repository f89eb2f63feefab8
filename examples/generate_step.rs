//! A text generator's attention: a prompt at once, then 256 steps of one token each against the cache.
//!
//! Everything is recorded into one encoder and submitted once: new rows are appended and attended to on the GPU, and
//! nothing is read back but the last result. It is then compared with one causal call over all tokens.
//!
//! `cargo run --release --example generate_step`

use std::time::Instant;

use heedful::cache::{AppendDescriptor, KvCache, KvCacheDescriptor, NewRows};
use heedful::device::Readback;
use heedful::{
    Align, Attention, DType, Engine, Layout, Result, Rotary, RotaryScaling, Shape, Storage, Table,
    wgpu,
};

#[path = "shared/mod.rs"]
mod shared;

const PROMPT: u32 = 64;
const STEPS: u32 = 256;
const TOKENS: u32 = PROMPT + STEPS;
const HEADS_Q: u32 = 8;
const HEADS_KV: u32 = 2;
const DIM: u32 = 64;

/// q, k and v of every token, `[tokens, heads, dim]`, and what the steps work on.
struct Buffers {
    all: [wgpu::Buffer; 3],
    step: [wgpu::Buffer; 3],
    o: wgpu::Buffer,
    o_step: wgpu::Buffer,
}

impl Buffers {
    fn new(engine: &Engine, values: &[Vec<f64>; 3]) -> Self {
        let usage = wgpu::BufferUsages::STORAGE
            | wgpu::BufferUsages::COPY_SRC
            | wgpu::BufferUsages::COPY_DST;
        let buffer = |bytes: u64| {
            engine.device().create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: bytes,
                usage,
                mapped_at_creation: false,
            })
        };
        let all = [0, 1, 2].map(|i| {
            let bytes = DType::F32.encode(values[i].iter().copied());
            let target = buffer(bytes.len() as u64);
            engine.queue().write_buffer(&target, 0, &bytes);
            target
        });
        let step = [HEADS_Q, HEADS_KV, HEADS_KV].map(|heads| buffer(bytes_of(1, heads)));
        let o = buffer(bytes_of(TOKENS, HEADS_Q));
        Self { all, step, o, o_step: buffer(bytes_of(1, HEADS_Q)) }
    }
}

fn bytes_of(tokens: u32, heads: u32) -> u64 {
    4 * u64::from(tokens) * u64::from(heads) * u64::from(DIM)
}

/// The call of `rows` newest tokens, queries turned by their place at the end of the keys.
fn call(cache: &KvCache, rows: u32) -> Result<Attention> {
    let rotary = Rotary { at_end: true, keys_from: TOKENS, ..Rotary::new(DIM, TOKENS) };
    let call = cache.attention(HEADS_Q, rows)?.rotary(rotary);
    Ok(call.layout_q(Layout::Bshd).layout_o(Layout::Bshd))
}

/// Prompt and steps through a cache; the outputs of all tokens, and microseconds to record a step.
fn generate(
    engine: &Engine,
    storage: Storage,
    values: &[Vec<f64>; 3],
    angles: &[Vec<f32>; 2],
) -> Result<(Vec<f64>, f64)> {
    let descriptor = KvCacheDescriptor {
        storage,
        pages: Some([TOKENS.div_ceil(16), 16]),
        ..KvCacheDescriptor::new(1, HEADS_KV, DIM, TOKENS)
    };
    let mut cache = KvCache::new(engine, &descriptor)?;
    let buffers = Buffers::new(engine, values);
    let turned = Some([angles[0].as_slice(), angles[1].as_slice()]);
    let rows = |[_, k, v]: &[wgpu::Buffer; 3], rows: u32| {
        let new = NewRows { k: k.into(), v: v.into(), rotary: turned };
        let layout = Layout::Bshd;
        let new_rows =
            AppendDescriptor { layout, rotary: Some((DIM, false)), ..AppendDescriptor::new(rows) };
        cache.bind_append(engine, &new_rows, &new)
    };
    let (append_prompt, append_token) = (rows(&buffers.all, PROMPT)?, rows(&buffers.step, 1)?);
    let bind = |rows: u32, q: &wgpu::Buffer, o: &wgpu::Buffer| {
        let plan = engine.plan(&call(&cache, rows)?)?;
        let mut tensors = cache.tensors(q, o);
        tensors.rotary_cos = Some(Table::F32(&angles[0]));
        tensors.rotary_sin = Some(Table::F32(&angles[1]));
        engine.bind(&plan, &tensors)
    };
    let attend_prompt = bind(PROMPT, &buffers.all[0], &buffers.o)?;
    let attend_token = bind(1, &buffers.step[0], &buffers.o_step)?;

    let mut encoder = engine.device().create_command_encoder(&Default::default());
    cache.append(&mut encoder, &append_prompt, &[PROMPT])?;
    attend_prompt.encode(&mut encoder);
    let start = Instant::now();
    for token in PROMPT..TOKENS {
        // A model would compute these three from the token before.
        let parts = buffers.all.iter().zip(&buffers.step).zip([HEADS_Q, HEADS_KV, HEADS_KV]);
        for ((all, step), heads) in parts {
            let bytes = bytes_of(1, heads);
            encoder.copy_buffer_to_buffer(all, u64::from(token) * bytes, step, 0, bytes);
        }
        cache.append(&mut encoder, &append_token, &[1])?;
        attend_token.encode(&mut encoder);
        let bytes = bytes_of(1, HEADS_Q);
        let at = u64::from(token) * bytes;
        encoder.copy_buffer_to_buffer(&buffers.o_step, 0, &buffers.o, at, bytes);
    }
    let microseconds = start.elapsed().as_secs_f64() * 1e6 / f64::from(STEPS);
    let size = buffers.o.size();
    let back = Readback::record(engine.device(), &mut encoder, &buffers.o, 0, size)?;
    engine.queue().submit([encoder.finish()]);
    Ok((DType::F32.decode(&back.read_blocking()?), microseconds))
}

fn main() -> Result<()> {
    let Some(engine) = shared::engine() else { return Ok(()) };
    let values = [HEADS_Q, HEADS_KV, HEADS_KV]
        .map(|heads| shared::noise(heads.into(), (TOKENS * heads * DIM) as usize));
    let (cos, sin) = RotaryScaling::None.tables(DIM, 1e4, TOKENS)?;
    let shape = Shape { heads_kv: HEADS_KV, ..Shape::self_attention(1, HEADS_Q, TOKENS, DIM) };
    let whole = Attention::new(shape).causal(Align::TopLeft).rotary(Rotary::new(DIM, TOKENS));
    let whole = whole.layout(Layout::Bshd);
    let wide = |x: &[f32]| x.iter().map(|x| f64::from(*x)).collect::<Vec<_>>();
    let [cos64, sin64] = [wide(&cos), wide(&sin)];
    let operands =
        heedful::Operands { rotary_cos: &cos64, rotary_sin: &sin64, ..Default::default() };
    let [q, k, v] = &values;
    let inputs = heedful::reference::Inputs { q, k, v, operands };
    // [heads, tokens, dim], as outputs on the host are.
    let at_once = engine.run_host(&engine.plan(&whole)?, &inputs)?.o;

    println!(
        "{PROMPT} tokens at once, then {STEPS} one by one, against one call over all {TOKENS}:"
    );
    for storage in Storage::ALL.iter().copied() {
        let (o, microseconds) = generate(&engine, storage, &values, &[cos.clone(), sin.clone()])?;
        let place = |i: usize| {
            let (dim, tokens) = (DIM as usize, TOKENS as usize);
            let (channel, token, head) = (i % dim, i / dim % tokens, i / dim / tokens);
            (token * HEADS_Q as usize + head) * dim + channel
        };
        let off = |(i, x): (usize, &f64)| (x - o[place(i)]).abs();
        let largest = at_once.iter().enumerate().map(off).fold(0.0, f64::max);
        let bits = storage.bytes(storage.row_units(DIM).into()) as f64 * 8.0 / f64::from(DIM);
        println!(
            "  {storage:>4} cache, {bits:>4.1} bits a channel: differs by at most {largest:.1e}, {microseconds:.0} µs to record a step"
        );
        // Measured of MXFP4: 0.24.
        let allowed = if storage == Storage::Mxfp4 { 0.3 } else { 0.1 };
        assert!(largest < allowed, "a step went wrong");
    }
    Ok(())
}
