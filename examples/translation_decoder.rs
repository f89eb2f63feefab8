//! A decoder that attends to an encoder's states, one output word at a time: the decoder's state is the
//! query, the score is general (qᵀ W k) or additive (vᵀ tanh(q + k)), the context vector is the weighted sum.
//!
//! The "translation" is a reordering, so that the alignment can be read off the picture.
//!
//! `cargo run --release --example translation_decoder`

mod shared;

use heedful::Operands;
use heedful::reference::Inputs;
use heedful::{Attention, Shape, WeightsAt};

const SOURCE: [&str; 5] = ["das", "Haus", "ist", "sehr", "alt"];
const TARGET: [&str; 5] = ["the", "house", "is", "very", "old"];
const STATE: usize = 12;
const HIDDEN: usize = 16;

fn main() -> heedful::Result<()> {
    let engine = shared::engine();
    let encoder = shared::noise(3, SOURCE.len() * HIDDEN);
    // What a trained decoder has learned: a state for each step from which W makes the source word's vector.
    let matrix = shared::noise(5, STATE * HIDDEN);
    let column = |e: usize, c: usize| matrix[e * HIDDEN + c];
    let state = |step: usize| -> Vec<f64> {
        let word = &encoder[step * HIDDEN..(step + 1) * HIDDEN];
        (0..STATE).map(|e| (0..HIDDEN).map(|c| column(e, c) * word[c]).sum()).collect()
    };

    let shape = |dim_qk: usize| Shape {
        batch: 1,
        heads_q: 1,
        heads_kv: 1,
        seq_q: 1,
        seq_kv: SOURCE.len() as u32,
        dim_qk: dim_qk as u32,
        dim_v: HIDDEN as u32,
    };
    let general = Attention::new(shape(HIDDEN))
        .general(STATE as u32)
        .scale(0.5)
        .with_weights(WeightsAt::Probabilities);
    // Additive: two hidden units per channel, tanh(a (q - k) + 1) - tanh(a (q - k) - 1), a bump at q = k.
    const SHARP: f64 = 4.0;
    let hidden = |word: &[f64], sign: f64, offset: f64| -> Vec<f64> {
        let unit = |b: f64| word.iter().map(move |x| sign * SHARP * x + b);
        unit(offset).chain(unit(-offset)).collect()
    };
    let keys: Vec<f64> = encoder.chunks(HIDDEN).flat_map(|word| hidden(word, -1.0, 0.0)).collect();
    let weights: Vec<f64> = (0..2 * HIDDEN).map(|i| if i < HIDDEN { 0.5 } else { -0.5 }).collect();
    let additive =
        Attention::new(shape(2 * HIDDEN)).additive(1.0).with_weights(WeightsAt::Probabilities);

    for (name, call) in [("general", general), ("additive", additive)] {
        let mut alignment = Vec::new();
        for step in 0..TARGET.len() {
            let word = &encoder[step * HIDDEN..(step + 1) * HIDDEN];
            let none = Operands::default();
            let inputs = if name == "general" {
                let operands = Operands { score_matrix: &matrix, ..none };
                Inputs { q: &state(step), k: &encoder, v: &encoder, operands }
            } else {
                let operands = Operands { score_v: &weights, ..none };
                Inputs { q: &hidden(word, 1.0, 1.0), k: &keys, v: &encoder, operands }
            };
            let found = shared::run(engine.as_ref(), &call, &inputs)?;
            alignment.extend(found.weights.unwrap_or_default());
        }
        println!("\n{name} score: where each output word looked");
        shared::map(&TARGET, &SOURCE, &alignment);
    }
    Ok(())
}
