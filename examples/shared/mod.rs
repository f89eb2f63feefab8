//! What several examples share: an engine or the reference, and maps of weights in the terminal.
#![allow(dead_code, unreachable_pub, reason = "each example uses a part")]

use heedful::reference::{Inputs, Outputs};
use heedful::{Attention, Engine, Result};

/// The best adapter's engine; `None` where there is no adapter, and the float64 reference serves.
pub fn engine() -> Option<Engine> {
    match Engine::new_blocking() {
        Ok(engine) => {
            println!("on {}", engine.capabilities().name);
            Some(engine)
        }
        Err(error) => {
            println!("on the float64 reference ({error})");
            None
        }
    }
}

/// Runs a call on the engine, or on the reference without one.
pub fn run(engine: Option<&Engine>, call: &Attention, inputs: &Inputs<'_>) -> Result<Outputs> {
    match engine {
        Some(engine) => engine.run_host(&engine.plan(call)?, inputs),
        None => call.validate()?.reference(inputs),
    }
}

/// Numbers in [-1, 1) that depend on `seed` only.
pub fn noise(seed: u64, n: usize) -> Vec<f64> {
    let hash = |i: u64| (i + (seed << 32)).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mix = |x: u64| (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (0..n as u64).map(|i| (mix(hash(i)) >> 40) as f64 / f64::from(1 << 23) - 1.0).collect()
}

/// Prints weights `[rows, columns]` as shades with labels.
pub fn map(rows: &[&str], columns: &[&str], weights: &[f64]) {
    let widest = rows.iter().map(|label| label.len()).max().unwrap_or(0);
    let heading: Vec<String> = columns.iter().map(|label| format!("{label:>6}")).collect();
    println!("{:widest$} {}", "", heading.join(" "));
    for (label, row) in rows.iter().zip(weights.chunks(columns.len())) {
        let cell = |w: &f64| {
            let shade = [" ", "░", "▒", "▓", "█"][(w * 4.99).clamp(0.0, 4.0) as usize];
            format!("{shade} {w:.2}")
        };
        let cells: Vec<String> = row.iter().map(|w| format!("{:>6}", cell(w))).collect();
        println!("{label:widest$} {}", cells.join(" "));
    }
}

/// The cosine of the angle between two vectors.
pub fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
