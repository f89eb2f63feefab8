//! A mask of your own, fused into the kernel: a prefix language model.
//!
//! The first `PREFIX` positions see each other in both directions; later ones see everything before
//! them. The mask is one line of WGSL and the same line in Rust, which checks it.
//!
//! `cargo run --example custom_mask`

use heedful::reference::Inputs;
use heedful::{Attention, CustomMask, Engine, Shape, WeightsAt};

const PREFIX: u32 = 4;

fn main() -> heedful::Result<()> {
    let wgsl = "fn mask_prefix(p: Position) -> bool { return p.key < 4u || p.key <= p.row; }";
    let mask = CustomMask::new("prefix", wgsl, |at| at.key < PREFIX || at.key <= at.row);
    let attention = Attention::new(Shape::self_attention(1, 1, 9, 16)).keep(mask);

    let wave =
        |phase: f64| -> Vec<f64> { (0..9 * 16).map(|i| (f64::from(i) * phase).sin()).collect() };
    let (q, k, v) = (wave(0.9), wave(0.7), wave(0.3));
    let inputs = Inputs { q: &q, k: &k, v: &v, operands: Default::default() };

    let engine = Engine::new_blocking()?;
    let plan = engine.plan(&attention)?;
    let found = engine.run_host(&plan, &inputs)?;
    let wanted = plan.problem().reference(&inputs)?;
    let error = found.o.iter().zip(&wanted.o).map(|(x, e)| (x - e).abs()).fold(0.0, f64::max);

    // The picture comes from the staged path, which can return the weights.
    let shown = engine.plan(&attention.with_weights(WeightsAt::Probabilities))?;
    let weights = engine.run_host(&shown, &inputs)?.weights.unwrap_or_default();
    println!("{plan}\n\nwho sees whom (rows are queries):");
    for row in weights.chunks(9) {
        println!(
            "  {}",
            row.iter().map(|w| if *w > 0.0 { " #" } else { " ." }).collect::<String>()
        );
    }
    println!("\nlargest difference from the float64 reference: {error:.1e}");
    assert!(error < 1e-5, "the kernel and the closure disagree");
    Ok(())
}
