//! Ten minutes of speech as 10 ms frames, 60 000 vectors, with truncated attention: each frame sees two
//! seconds around it. Time and memory grow with the length, not with its square.
//!
//! `cargo run --release --example speech_window [FRAMES]`

mod shared;

use std::time::Instant;

use heedful::Operands;
use heedful::reference::Inputs;
use heedful::{Align, Attention, Shape};

/// Frames on each side that a frame sees: one second.
const REACH: u32 = 100;

fn main() -> heedful::Result<()> {
    let frames = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(60_000);
    let engine = shared::engine();
    println!(" frames   seconds   GFLOP  GFLOP of all pairs  scratch B  bytes of all scores");
    for n in [frames / 4, frames / 2, frames] {
        let shape = Shape::self_attention(1, 2, n, 32);
        let call = Attention::new(shape).window(Some(REACH), Some(REACH), Align::TopLeft);
        let x = shared::noise(1, shape.elements()[0] as usize);
        let inputs = Inputs { q: &x, k: &x, v: &x, operands: Operands::default() };
        let scratch = match &engine {
            Some(engine) => engine.plan(&call)?.workspace_bytes(),
            None => 0,
        };
        let start = Instant::now();
        let found = shared::run(engine.as_ref(), &call, &inputs)?;
        let seconds = start.elapsed().as_secs_f64();
        assert!(found.o.iter().all(|x| x.is_finite()));
        let work = call.validate()?.flops(&Operands::default()) as f64 / 1e9;
        let all = Attention::new(shape).validate()?.flops(&Operands::default()) as f64 / 1e9;
        let scores = 4 * u64::from(n) * u64::from(n) * 2;
        println!("{n:>7} {seconds:>9.2} {work:>7.2} {all:>19.1} {scratch:>10} {scores:>20}");
    }
    println!("twice the frames: twice the time; all pairs would be four times");
    Ok(())
}
