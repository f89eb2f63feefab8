//! "I saw a saw": the same word in two places. Without positions the two *saw*s cannot be told apart; with
//! position vectors added, their context vectors differ.
//!
//! `cargo run --release --example sequence_labeling`

mod shared;

use heedful::layer::MultiHeadAttention;
use heedful::reference::Inputs;
use heedful::{Attention, Shape, WeightsAt};

const WORDS: [&str; 4] = ["I", "saw", "a", "saw"];
const WIDTH: usize = 16;

fn main() -> heedful::Result<()> {
    let engine = shared::engine();
    // A vector per word, the same wherever the word stands.
    let vocabulary = ["I", "saw", "a"];
    let word = |word: &str| {
        let id = vocabulary.iter().position(|known| *known == word).unwrap_or(0);
        shared::noise(id as u64 + 1, WIDTH)
    };
    let plain: Vec<f64> = WORDS.iter().flat_map(|w| word(w)).collect();
    let positions = MultiHeadAttention::sinusoidal(4, WIDTH as u32);
    let placed: Vec<f64> = plain.iter().zip(&positions).map(|(x, p)| x + f64::from(*p)).collect();

    let shape = Shape::self_attention(1, 1, 4, WIDTH as u32);
    let call = Attention::new(shape).with_weights(WeightsAt::Probabilities);
    for (name, x) in [("without positions", &plain), ("with positions", &placed)] {
        let inputs = Inputs { q: x, k: x, v: x, operands: Default::default() };
        let found = shared::run(engine.as_ref(), &call, &inputs)?;
        println!("\n{name}: who attends to whom");
        shared::map(&WORDS, &WORDS, &found.weights.unwrap_or_default());
        let context = |i: usize| &found.o[i * WIDTH..(i + 1) * WIDTH];
        let apart =
            context(1).iter().zip(context(3)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        println!("the two context vectors of \"saw\" differ by at most {apart:.4}");
    }
    Ok(())
}
