//! The whole of a sentence model, all-MiniLM-L6-v2, with every layer's attention on the engine:
//! embeddings, six layers of attention and feed-forward with layer norm, mean pooling.
//!
//! `cargo run --release --example sentence_embedding -- MODEL_FOLDER [SENTENCE…]`, where the folder holds
//! `model.safetensors` and `vocab.txt`; `tests/minilm.sh` fetches one.

mod shared;

use std::collections::HashMap;
use std::error::Error;
use std::path::Path;

use heedful::Operands;
use heedful::layer::{HostWeights, LayerInputs, MultiHeadAttention};
use heedful::{Attention, Engine, Policy, Shape};
use safetensors::SafeTensors;

const SENTENCES: [&str; 6] = [
    "I saw a saw.",
    "The bank approved the loan.",
    "We sat on the bank of the river.",
    "The animal didn't cross the street because it was too tired.",
    "A credit institution agreed to lend the money.",
    "Hello!",
];
const WIDTH: usize = 384;
const HEADS: u32 = 12;
const LAYERS: usize = 6;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("which folder holds model.safetensors and vocab.txt?")?;
    let given: Vec<String> = arguments.collect();
    let sentences: Vec<&str> = if given.is_empty() {
        SENTENCES.to_vec()
    } else {
        given.iter().map(String::as_str).collect()
    };
    let bytes = std::fs::read(Path::new(&folder).join("model.safetensors"))?;
    let model = Model { tensors: SafeTensors::deserialize(&bytes)?, engine: shared::engine() };
    let vocabulary = std::fs::read_to_string(Path::new(&folder).join("vocab.txt"))?;
    let words: HashMap<&str, usize> = vocabulary.lines().zip(0..).collect();

    let mut embeddings = Vec::new();
    for sentence in &sentences {
        embeddings.push(model.embed(&tokens(&words, sentence))?);
    }
    for (i, sentence) in sentences.iter().enumerate() {
        let nearest = (0..sentences.len())
            .filter(|j| *j != i)
            .map(|j| (shared::cosine(&embeddings[i], &embeddings[j]), j))
            .max_by(|a, b| a.0.total_cmp(&b.0));
        match nearest {
            Some((likeness, j)) => {
                println!("{sentence:?} is most like {:?} ({likeness:.3})", sentences[j]);
            }
            None => println!("{sentence:?}"),
        }
    }
    // For the test, which compares them with those of the model's own implementation.
    if std::env::var_os("PRINT_EMBEDDINGS").is_some() {
        for embedding in &embeddings {
            let numbers: Vec<String> = embedding.iter().map(|x| format!("{x:.9}")).collect();
            println!("embedding {}", numbers.join(" "));
        }
    }
    Ok(())
}

/// Ids of a sentence's word pieces between [CLS] and [SEP]: lower case, punctuation apart, longest first.
fn tokens(words: &HashMap<&str, usize>, sentence: &str) -> Vec<usize> {
    let mut pieces = Vec::new();
    let mut word = String::new();
    for c in sentence.to_lowercase().chars().chain([' ']) {
        if c.is_alphanumeric() {
            word.push(c);
            continue;
        }
        if !word.is_empty() {
            pieces.push(std::mem::take(&mut word));
        }
        if !c.is_whitespace() {
            pieces.push(c.to_string());
        }
    }
    let mut ids = vec![words["[CLS]"]];
    for piece in &pieces {
        ids.extend(word_pieces(words, piece).unwrap_or_else(|| vec![words["[UNK]"]]));
    }
    ids.push(words["[SEP]"]);
    ids
}

fn word_pieces(words: &HashMap<&str, usize>, word: &str) -> Option<Vec<usize>> {
    let mut ids = Vec::new();
    let mut start = 0;
    while start < word.len() {
        let prefix = if start == 0 { "" } else { "##" };
        let ends = (start + 1..=word.len()).rev().filter(|end| word.is_char_boundary(*end));
        let known = |end: &usize| words.get(format!("{prefix}{}", &word[start..*end]).as_str());
        let end = ends.into_iter().find(|end| known(end).is_some())?;
        ids.push(*known(&end)?);
        start = end;
    }
    Some(ids)
}

struct Model<'a> {
    tensors: SafeTensors<'a>,
    engine: Option<Engine>,
}

impl Model<'_> {
    fn tensor(&self, name: &str) -> Result<Vec<f64>, Box<dyn Error>> {
        let data = self.tensors.tensor(name)?;
        let floats = data.data().as_chunks::<4>().0.iter();
        Ok(floats.map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect())
    }

    /// The mean of the last layer's vectors, brought to length 1.
    fn embed(&self, ids: &[usize]) -> Result<Vec<f64>, Box<dyn Error>> {
        let words = self.tensor("embeddings.word_embeddings.weight")?;
        let places = self.tensor("embeddings.position_embeddings.weight")?;
        let kinds = self.tensor("embeddings.token_type_embeddings.weight")?;
        let mut x = Vec::with_capacity(ids.len() * WIDTH);
        for (place, id) in ids.iter().enumerate() {
            let channel = |c: usize| words[id * WIDTH + c] + places[place * WIDTH + c] + kinds[c];
            x.extend((0..WIDTH).map(channel));
        }
        self.normalize("embeddings.LayerNorm", &mut x)?;
        for i in 0..LAYERS {
            let layer = format!("encoder.layer.{i}");
            let attended = self.attend(&layer, &x)?;
            add(&mut x, &attended);
            self.normalize(&format!("{layer}.attention.output.LayerNorm"), &mut x)?;
            let mut hidden = self.linear(&format!("{layer}.intermediate.dense"), &x)?;
            hidden.iter_mut().for_each(|h| *h = gelu(*h));
            let fed = self.linear(&format!("{layer}.output.dense"), &hidden)?;
            add(&mut x, &fed);
            self.normalize(&format!("{layer}.output.LayerNorm"), &mut x)?;
        }
        let mut mean = vec![0.0; WIDTH];
        x.chunks(WIDTH).for_each(|row| add(&mut mean, row));
        let length = mean.iter().map(|x| x * x).sum::<f64>().sqrt();
        Ok(mean.into_iter().map(|x| x / length).collect())
    }

    /// Projections, attention and output projection of one layer, in one pass on the engine.
    fn attend(&self, layer: &str, x: &[f64]) -> Result<Vec<f64>, Box<dyn Error>> {
        let get = |name: &str| self.tensor(&format!("{layer}.attention.{name}"));
        let weights = HostWeights {
            w_q: get("self.query.weight")?,
            b_q: get("self.query.bias")?,
            w_k: get("self.key.weight")?,
            b_k: get("self.key.bias")?,
            w_v: get("self.value.weight")?,
            b_v: get("self.value.bias")?,
            w_o: get("output.dense.weight")?,
            b_o: get("output.dense.bias")?,
            ..HostWeights::default()
        };
        let tokens = (x.len() / WIDTH) as u32;
        let shape = Shape::self_attention(1, HEADS, tokens, WIDTH as u32 / HEADS);
        let layer = MultiHeadAttention::new(Attention::new(shape), WIDTH as u32);
        let operands = Operands::default();
        let inputs = LayerInputs { x_q: x, x_k: x, x_v: x, operands, weights: &weights };
        Ok(match &self.engine {
            Some(engine) => {
                let plan = engine.plan_layer(&layer, &Policy::default())?;
                engine.run_layer_host(&plan, &inputs)?.out
            }
            None => layer.reference(&inputs)?.out,
        })
    }

    fn linear(&self, name: &str, x: &[f64]) -> Result<Vec<f64>, Box<dyn Error>> {
        let w = self.tensor(&format!("{name}.weight"))?;
        let b = self.tensor(&format!("{name}.bias"))?;
        let inputs = w.len() / b.len();
        let row = |x: &[f64]| -> Vec<f64> {
            let dot = |w: &[f64]| w.iter().zip(x).map(|(w, x)| w * x).sum::<f64>();
            w.chunks(inputs).zip(&b).map(|(w, b)| dot(w) + b).collect()
        };
        Ok(x.chunks(inputs).flat_map(row).collect())
    }

    fn normalize(&self, name: &str, x: &mut [f64]) -> Result<(), Box<dyn Error>> {
        let weight = self.tensor(&format!("{name}.weight"))?;
        let bias = self.tensor(&format!("{name}.bias"))?;
        for row in x.chunks_mut(WIDTH) {
            let mean = row.iter().sum::<f64>() / WIDTH as f64;
            let spread = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / WIDTH as f64;
            for ((x, w), b) in row.iter_mut().zip(&weight).zip(&bias) {
                *x = (*x - mean) / (spread + 1e-12).sqrt() * w + b;
            }
        }
        Ok(())
    }
}

fn add(to: &mut [f64], from: &[f64]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
}

/// x Φ(x), with the error function of Abramowitz and Stegun 7.1.26 (within 1.5e-7).
fn gelu(x: f64) -> f64 {
    let z = (x / std::f64::consts::SQRT_2).abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let series = [0.254_829_592, -0.284_496_736, 1.421_413_741, -1.453_152_027, 1.061_405_429];
    let sum = series.iter().rev().fold(0.0, |sum, a| (sum + a) * t);
    let erf = (1.0 - sum * (-z * z).exp()).copysign(x);
    0.5 * x * (1.0 + erf)
}
