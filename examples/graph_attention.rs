//! A molecule as a graph: each atom attends to the atoms it is bonded to, along the bonds only. Dense
//! attention with the adjacency as its mask gives the same.
//!
//! `cargo run --release --example graph_attention`

mod shared;

use heedful::Operands;
use heedful::reference::Inputs;
use heedful::{Attention, Edges, Shape, WeightsAt};

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
    let size = n as u32;
    let both = |(a, b): &(usize, usize)| [[*a as u32, *b as u32], [*b as u32, *a as u32]];
    let bonds: Vec<[u32; 2]> = BONDS.iter().flat_map(both).collect();
    let (starts, keys, _) = Edges::rows(&bonds, size, size)?;
    let shape = Shape::self_attention(1, 1, size, WIDTH as u32);

    let sparse = Attention::new(shape).edges(Edges { count: keys.len() as u32, bias: false });
    let operands = Operands { edge_starts: &starts, edge_keys: &keys, ..Operands::default() };
    let inputs = Inputs { q: &x, k: &x, v: &x, operands };
    let along = shared::run(engine.as_ref(), &sparse, &inputs)?;

    let mut mask = vec![false; n * n];
    bonds.iter().for_each(|[a, b]| mask[*a as usize * n + *b as usize] = true);
    let dense =
        Attention::new(shape).mask([1, 1, size, size]).with_weights(WeightsAt::Probabilities);
    let operands = Operands { mask: &mask, ..Operands::default() };
    let masked = shared::run(engine.as_ref(), &dense, &Inputs { operands, ..inputs })?;
    let weights = masked.weights.unwrap_or_default();

    for (i, atom) in ATOMS.iter().enumerate() {
        let heard: Vec<String> = (0..n)
            .filter(|j| mask[i * n + j])
            .map(|j| format!("{} {:.0} %", ATOMS[j], 100.0 * weights[i * n + j]))
            .collect();
        let nobody = || "nobody: its vector is 0".to_owned();
        let heard = if heard.is_empty() { nobody() } else { heard.join(", ") };
        println!("{atom} listens to {heard}");
    }
    let apart = |(a, b): (&f64, &f64)| (a - b).abs();
    let furthest = along.o.iter().zip(&masked.o).map(apart).fold(0.0, f64::max);
    println!("along the bonds and dense under the mask differ by {furthest:.1e} at most");
    Ok(())
}
