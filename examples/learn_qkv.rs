//! One attention layer learns to copy the letter that follows a marker: W_q, W_k, W_v and W_o from data, by plain
//! gradient descent, the layer and its gradients on the engine.
//!
//! A sequence is letters with three markers among them; a token's vector says what it is and what stands before it. The
//! layer is asked for each marker and is to answer with the letter behind it. So q of a marker must meet k of whatever
//! stands behind that marker, wherever that is, and v and W_o must carry the letter: nobody tells the layer that, it
//! follows from the loss.
//!
//! `cargo run --release --example learn_qkv`

mod shared;

use heedful::layer::{
    HostWeights, LayerBackward, LayerBackwardPlan, LayerGradients, LayerInputs, LayerOutputs,
    LayerPlan, LayerTensor, MultiHeadAttention,
};
use heedful::{Attention, Engine, Policy, Result, Shape, WeightsAt};

const MARKERS: [&str; 3] = ["▲", "●", "■"];
const LETTERS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
const TOKENS: usize = MARKERS.len() + LETTERS.len();
const LENGTH: usize = 12;
/// What a token is, then what stands before it.
const WIDTH: usize = 2 * TOKENS;
const CHANNELS: u32 = 8;
const BATCH: usize = 16;
const STEPS: usize = 80;
const RATE: f64 = 4.0;

fn main() -> Result<()> {
    let mut model = Model::new(shared::engine())?;
    let shown = Sequences::draw(1);
    println!("\nbefore: where each marker looks");
    model.show(&shown)?;
    println!("\nloss, step by step of {BATCH} new sequences each:");
    for step in 0..=STEPS {
        let loss = model.learn(&Sequences::draw(100 + step as u64))?;
        if step % 10 == 0 {
            println!("{step:4} {loss:.4} {}", "#".repeat((loss * 30.0).ceil() as usize));
        }
    }
    println!("\nafter: where each marker looks");
    model.show(&shown)?;
    let (mut right, mut asked) = (0, 0);
    for test in 0..8 {
        let sequences = Sequences::draw(10_000 + test);
        let answers = model.answers(&sequences)?;
        right += answers.iter().zip(&sequences.answers).filter(|(a, b)| a == b).count();
        asked += answers.len();
    }
    println!("\n{right} of {asked} answers right in sequences it has not seen");
    Ok(())
}

/// A batch of sequences, the answers to their markers, and their vectors.
struct Sequences {
    tokens: Vec<[usize; LENGTH]>,
    /// The letter behind each marker, `[batch, markers]`.
    answers: Vec<usize>,
    /// `[batch, LENGTH, WIDTH]`.
    vectors: Vec<f64>,
}

impl Sequences {
    fn draw(seed: u64) -> Self {
        let noise = shared::noise(seed, 4 * BATCH * LENGTH);
        let mut noise = noise.into_iter().map(|x| (x + 1.0) / 2.0);
        let mut below = |n: usize| (noise.next().unwrap_or(0.0) * n as f64) as usize % n;
        let mut all = Self { tokens: Vec::new(), answers: Vec::new(), vectors: Vec::new() };
        for _ in 0..BATCH {
            let mut tokens = [0; LENGTH];
            tokens.iter_mut().for_each(|token| *token = MARKERS.len() + below(LETTERS.len()));
            // Each marker in another pair of places, so that a letter follows it.
            let mut pairs: Vec<usize> = (0..LENGTH / 2).collect();
            for marker in 0..MARKERS.len() {
                let place = 2 * pairs.swap_remove(below(pairs.len()));
                tokens[place] = marker;
                all.answers.push(tokens[place + 1] - MARKERS.len());
            }
            for (i, token) in tokens.iter().enumerate() {
                let mut vector = [0.0; WIDTH];
                vector[*token] = 1.0;
                if i > 0 {
                    vector[TOKENS + tokens[i - 1]] = 1.0;
                }
                all.vectors.extend(vector);
            }
            all.tokens.push(tokens);
        }
        all
    }
}

/// The layer with its plans, and what it has learned.
struct Model {
    engine: Option<(Engine, LayerPlan, LayerBackwardPlan)>,
    layer: MultiHeadAttention,
    backward: LayerBackward,
    weights: HostWeights,
    /// Each marker by itself, in every sequence: `[batch, markers, markers]`.
    questions: Vec<f64>,
}

impl Model {
    fn new(engine: Option<Engine>) -> Result<Self> {
        let shape = Shape {
            batch: BATCH as u32,
            heads_q: 1,
            heads_kv: 1,
            seq_q: MARKERS.len() as u32,
            seq_kv: LENGTH as u32,
            dim_qk: CHANNELS,
            dim_v: CHANNELS,
        };
        let attention = Attention::new(shape).with_weights(WeightsAt::Probabilities);
        let layer = MultiHeadAttention {
            width_q: MARKERS.len() as u32,
            width_out: Some(LETTERS.len() as u32),
            ..MultiHeadAttention::new(attention, WIDTH as u32)
        };
        use LayerTensor::{WK, WO, WQ, WV};
        let backward = LayerBackward::of(layer.clone()).only(&[WQ, WK, WV, WO]);
        let start = |seed: u64, tensor: LayerTensor| -> Vec<f64> {
            let n = tensor.elements(&layer).unwrap_or(0) as usize;
            shared::noise(seed, n).into_iter().map(|x| 0.5 * x).collect()
        };
        let weights = HostWeights {
            w_q: start(2, WQ),
            w_k: start(3, WK),
            w_v: start(4, WV),
            w_o: start(5, WO),
            ..HostWeights::default()
        };
        let each = |i: usize| if i / MARKERS.len() == i % MARKERS.len() { 1.0 } else { 0.0 };
        let questions = (0..BATCH * 9).map(|i| each(i % 9)).collect();
        let plans = |engine: Engine| -> Result<_> {
            let policy = Policy::default();
            let plan = engine.plan_layer(&layer, &policy)?;
            let gradients = engine.plan_layer_backward(&backward, &policy)?;
            Ok((engine, plan, gradients))
        };
        let engine = engine.map(plans).transpose()?;
        Ok(Self { engine, layer, backward, weights, questions })
    }

    fn inputs<'a>(&'a self, sequences: &'a Sequences) -> LayerInputs<'a> {
        LayerInputs {
            x_q: &self.questions,
            x_k: &sequences.vectors,
            x_v: &sequences.vectors,
            operands: Default::default(),
            weights: &self.weights,
        }
    }

    fn forward(&self, sequences: &Sequences) -> Result<LayerOutputs> {
        let inputs = self.inputs(sequences);
        match &self.engine {
            Some((engine, plan, _)) => engine.run_layer_host(plan, &inputs),
            None => self.layer.reference(&inputs),
        }
    }

    fn gradients(&self, sequences: &Sequences, d_out: &[f64]) -> Result<LayerGradients> {
        let inputs = self.inputs(sequences);
        match &self.engine {
            Some((engine, plan, gradients)) => {
                engine.run_layer_backward_host(plan, gradients, &inputs, d_out)
            }
            None => self.backward.reference(&inputs, d_out),
        }
    }

    /// One step down the gradient; returns the loss before it, the mean of −ln of what the right letter is given.
    fn learn(&mut self, sequences: &Sequences) -> Result<f64> {
        let mut d_out = self.forward(sequences)?.out;
        let share = 1.0 / sequences.answers.len() as f64;
        let mut loss = 0.0;
        for (row, answer) in d_out.chunks_mut(LETTERS.len()).zip(&sequences.answers) {
            let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = row.iter().map(|x| (x - most).exp()).sum();
            row.iter_mut().for_each(|x| *x = (*x - most).exp() / sum);
            loss -= row[*answer].ln() * share;
            row[*answer] -= 1.0;
            row.iter_mut().for_each(|x| *x *= share);
        }
        let gradients = self.gradients(sequences, &d_out)?;
        let w = &mut self.weights;
        for (tensor, weights) in [
            (LayerTensor::WQ, &mut w.w_q),
            (LayerTensor::WK, &mut w.w_k),
            (LayerTensor::WV, &mut w.w_v),
            (LayerTensor::WO, &mut w.w_o),
        ] {
            let gradient = gradients.get(tensor).unwrap_or_default();
            weights.iter_mut().zip(gradient).for_each(|(w, d)| *w -= RATE * d);
        }
        Ok(loss)
    }

    /// The letter that is given most, for each marker of each sequence.
    fn answers(&self, sequences: &Sequences) -> Result<Vec<usize>> {
        let out = self.forward(sequences)?.out;
        let best = |row: &[f64]| {
            let letters = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
            letters.map_or(0, |(letter, _)| letter)
        };
        Ok(out.chunks(LETTERS.len()).map(best).collect())
    }

    /// The weights of the first sequence.
    fn show(&self, sequences: &Sequences) -> Result<()> {
        let weights = self.forward(sequences)?.weights.unwrap_or_default();
        let names: Vec<&str> = MARKERS.iter().chain(&LETTERS).copied().collect();
        let columns: Vec<&str> = sequences.tokens[0].iter().map(|token| names[*token]).collect();
        shared::map(&MARKERS, &columns, &weights[..MARKERS.len() * LENGTH]);
        Ok(())
    }
}
