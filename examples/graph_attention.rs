//! A molecule as a graph: each atom attends to the atoms it is bonded to. The adjacency is the mask; a
//! computation along the bonds alone gives the same.
//!
//! `cargo run --release --example graph_attention`

mod shared;

use heedful::feature::Operands;
use heedful::reference::Inputs;
use heedful::{Attention, Shape, WeightsAt};

/// Caffeine without its hydrogens, and a lone ion beside it.
const ATOMS: [&str; 15] =
    ["C1", "N1", "C2", "N2", "C3", "C4", "C5", "O1", "N3", "C6", "O2", "N4", "C7", "C8", "Na"];
const BONDS: [(usize, usize); 15] = [
    (0, 1),
    (1, 2),
    (2, 3),
    (3, 4),
    (4, 5),
    (5, 1),
    (5, 6),
    (6, 7),
    (6, 8),
    (8, 9),
    (9, 10),
    (9, 11),
    (11, 4),
    (8, 12),
    (11, 13),
];
const WIDTH: usize = 8;

fn main() -> heedful::Result<()> {
    let engine = shared::engine();
    let n = ATOMS.len();
    // A vector per element, and a little of its own for every atom.
    let x: Vec<f64> = (0..n)
        .flat_map(|i| {
            let element = shared::noise(u64::from(ATOMS[i].as_bytes()[0]), WIDTH);
            let own = shared::noise(1000 + i as u64, WIDTH);
            element.into_iter().zip(own).map(|(a, b)| a + 0.3 * b).collect::<Vec<f64>>()
        })
        .collect();
    let mut mask = vec![false; n * n];
    for (a, b) in BONDS {
        mask[a * n + b] = true;
        mask[b * n + a] = true;
    }

    let shape = Shape::self_attention(1, 1, n as u32, WIDTH as u32);
    let call = Attention::new(shape)
        .mask([1, 1, n as u32, n as u32])
        .with_weights(WeightsAt::Probabilities);
    let operands = Operands { mask: &mask, ..Operands::default() };
    let inputs = Inputs { q: &x, k: &x, v: &x, operands };
    let found = shared::run(engine.as_ref(), &call, &inputs)?;
    let weights = found.weights.unwrap_or_default();

    let mut furthest = 0.0_f64;
    for (i, atom) in ATOMS.iter().enumerate() {
        let along = along_bonds(&x, i);
        let dense = &found.o[i * WIDTH..(i + 1) * WIDTH];
        let apart = along.iter().zip(dense).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        furthest = furthest.max(apart);
        let heard: Vec<String> = (0..n)
            .filter(|j| mask[i * n + j])
            .map(|j| format!("{} {:.0} %", ATOMS[j], 100.0 * weights[i * n + j]))
            .collect();
        let heard =
            if heard.is_empty() { "nobody: its vector is 0".into() } else { heard.join(", ") };
        println!("{atom} listens to {heard}");
    }
    println!(
        "dense attention under the mask and sums along bonds differ by {furthest:.1e} at most"
    );
    Ok(())
}

/// softmax over the bonded atoms, by hand.
fn along_bonds(x: &[f64], i: usize) -> Vec<f64> {
    let row = |j: usize| &x[j * WIDTH..(j + 1) * WIDTH];
    let bonded: Vec<usize> = BONDS
        .iter()
        .filter_map(|&(a, b)| if a == i { Some(b) } else { (b == i).then_some(a) })
        .collect();
    let score = |j: usize| -> f64 {
        row(i).iter().zip(row(j)).map(|(a, b)| a * b).sum::<f64>() / (WIDTH as f64).sqrt()
    };
    let total: f64 = bonded.iter().map(|j| score(*j).exp()).sum();
    let mut sum = vec![0.0; WIDTH];
    for j in bonded {
        for (to, from) in sum.iter_mut().zip(row(j)) {
            *to += score(j).exp() / total * from;
        }
    }
    sum
}
