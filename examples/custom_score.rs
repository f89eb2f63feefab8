//! A score modifier of your own, fused into the kernel: attention that decays with distance and reads a
//! table of the caller's, one strength per head.
//!
//! `cargo run --example custom_score`

use heedful::Operands;
use heedful::reference::Inputs;
use heedful::{Attention, CustomScore, Engine, Shape};

fn main() -> heedful::Result<()> {
    let strengths = [0.0_f32, 0.5, 2.0];
    let wgsl = "
        fn score_decay(s: f32, p: Position) -> f32 {
            let strength = bitcast<f32>(table_word(p.head));
            let distance = abs(f32(p.row) - f32(p.key));
            return s - strength * log(1.0 + distance);
        }";
    let decay = CustomScore::new("decay", wgsl, move |s, at| {
        let distance = (f64::from(at.row) - f64::from(at.key)).abs();
        s - f64::from(strengths[at.head as usize]) * distance.ln_1p()
    });
    let shape = Shape::self_attention(1, 3, 64, 32);
    let attention = Attention::new(shape).score(decay).table(3);

    let wave = |phase: f64| -> Vec<f64> {
        (0..3 * 64 * 32).map(|i| (f64::from(i) * phase).sin()).collect()
    };
    let (q, k, v) = (wave(0.9), wave(0.7), wave(0.3));
    let table = strengths.map(f32::to_bits);
    let operands = Operands { table: &table, ..Default::default() };
    let inputs = Inputs { q: &q, k: &k, v: &v, operands };

    let engine = Engine::new_blocking()?;
    let plan = engine.plan(&attention)?;
    let found = engine.run_host(&plan, &inputs)?;
    let wanted = plan.problem().reference(&inputs)?;
    println!("{plan}\n");
    for (head, strength) in strengths.iter().enumerate() {
        let rows = head * 64 * 32..(head + 1) * 64 * 32;
        let pairs = found.o[rows.clone()].iter().zip(&wanted.o[rows]);
        let error = pairs.map(|(x, e)| (x - e).abs()).fold(0.0, f64::max);
        println!(
            "head {head}, strength {strength}: largest difference from the reference {error:.1e}"
        );
        assert!(error < 1e-5, "the kernel and the closure disagree");
    }
    Ok(())
}
