//! An image as a set of pixel vectors: each pixel becomes the mean of pixels that look like its
//! surroundings (non-local means), once over the whole image and once over its neighbourhood only.
//!
//! `cargo run --release --example image_neighborhood`

mod shared;

use std::time::Instant;

use heedful::reference::Inputs;
use heedful::{Attention, Neighborhood, Shape};

const SIDE: usize = 96;

/// A bright disc and a stripe on a slope.
fn picture(row: usize, column: usize) -> f64 {
    let (y, x) = (row as f64 - 40.0, column as f64 - 36.0);
    let disc = if y.hypot(x) < 22.0 { 0.6 } else { 0.0 };
    let stripe = if column > 68 && column < 80 { 0.5 } else { 0.0 };
    disc + stripe + 0.2 * row as f64 / SIDE as f64
}

fn main() -> heedful::Result<()> {
    let engine = shared::engine();
    let pixels: Vec<(usize, usize)> =
        (0..SIDE).flat_map(|row| (0..SIDE).map(move |column| (row, column))).collect();
    let clean: Vec<f64> = pixels.iter().map(|(row, column)| picture(*row, *column)).collect();
    let noise = shared::noise(7, clean.len());
    let noisy: Vec<f64> = clean.iter().zip(&noise).map(|(x, n)| x + 0.25 * n).collect();

    // A pixel's vector: the five by five patch around it, mirrored at the borders.
    let mirror = |i: i64| (if i < 0 { -i } else { i }).min(2 * SIDE as i64 - 2 - i) as usize;
    let patch = |(row, column): &(usize, usize)| -> Vec<f64> {
        let offsets = (-2..=2).flat_map(|y| (-2..=2).map(move |x| (y, x)));
        let at = |(y, x)| noisy[mirror(*row as i64 + y) * SIDE + mirror(*column as i64 + x)];
        offsets.map(at).collect()
    };
    // -|a - b|^2 = 2 a·b - |a|^2 - |b|^2: two more channels make a dot product of a distance.
    let square = |p: &[f64]| p.iter().map(|x| x * x).sum::<f64>();
    let patches: Vec<Vec<f64>> = pixels.iter().map(patch).collect();
    let q: Vec<f64> = patches.iter().flat_map(|p| [p.clone(), vec![1.0]].concat()).collect();
    let k: Vec<f64> =
        patches.iter().flat_map(|p| [p.clone(), vec![-0.5 * square(p)]].concat()).collect();

    let shape = Shape { dim_v: 1, ..Shape::self_attention(1, 1, clean.len() as u32, 26) };
    let call = Attention::new(shape).scale(6.0);
    let grid = Neighborhood::image(SIDE as u32, SIDE as u32, 13);
    println!("noise: {:.2} dB", decibel(&clean, &noisy));
    for (name, call) in [
        ("every pixel sees the image", call.clone()),
        ("every pixel sees 13 by 13", call.neighborhood(grid)),
    ] {
        let inputs = Inputs { q: &q, k: &k, v: &noisy, operands: Default::default() };
        // The first run also compiles.
        shared::run(engine.as_ref(), &call, &inputs)?;
        let start = Instant::now();
        let found = shared::run(engine.as_ref(), &call, &inputs)?;
        let ms = start.elapsed().as_secs_f64() * 1e3;
        println!("{name}: {:.2} dB in {ms:.0} ms", decibel(&clean, &found.o));
    }
    Ok(())
}

/// Peak signal to noise.
fn decibel(clean: &[f64], found: &[f64]) -> f64 {
    let errors = clean.iter().zip(found).map(|(a, b)| (a - b).powi(2));
    -10.0 * (errors.sum::<f64>() / clean.len() as f64).log10()
}
