//! An LSTM encoder–decoder learns to turn digit strings around and to translate phrases, without attention and with
//! it: dot, general and additive scores, local attention around a place that it predicts, static attention, keys
//! beside values.
//!
//! Without attention the decoder has one vector for the whole input, and the longer that is, the less it holds. With
//! attention it looks at the encoder's states anew for each word that it says. It learns by teacher forcing: it is
//! told the right word before the one that it is to say. Afterwards it is told its own, until it says `<EOS>`.
//!
//! `cargo run --release --example seq2seq`

#[path = "shared/mod.rs"]
pub(crate) mod shared;

use burn::module::{Initializer, Module, Param};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig, LstmState};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, Int, Tensor, TensorData};
use heedful_burn::heedful::Operand;
use heedful_burn::{Attend, Attended, Result};
use shared::Numbers;

/// Channels of embeddings and states.
const WIDTH: usize = 32;
const LAYERS: usize = 2;
const BATCH: usize = 32;
/// Adam's.
const RATE: f64 = 0.02;
/// Words of every target language: behind the end, before the first word, the end.
const PAD: usize = 0;
const SOS: usize = 1;
const EOS: usize = 2;

/// How a decoder's state finds what it needs among the encoder's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// It does not: the encoder's last state is all.
    None,
    /// By dot products of states.
    Dot,
    /// By a learned matrix between them.
    General,
    /// By vᵀ tanh(W q + U k).
    Additive,
    /// Among the states near a place that it predicts, the nearer the more.
    Local,
    /// Once, before its first word, for all that it says.
    Static,
    /// By keys that are not the values.
    KeyValue,
}

/// Encoder, decoder and what one looks at the other with.
#[derive(Module, Debug)]
struct Translator {
    source: Embedding,
    target: Embedding,
    encoder: Vec<Lstm>,
    decoder: Vec<Lstm>,
    /// Of the general score, `[WIDTH, WIDTH]`.
    matrix: Option<Param<Tensor<2>>>,
    /// Of the additive score, v; of the local one the predicted place is made by it.
    vector: Option<Param<Tensor<1>>>,
    /// W of the additive score and of the predicted place.
    query: Option<Linear>,
    /// U of the additive score; keys beside values.
    key: Option<Linear>,
    value: Option<Linear>,
    /// From state and context to what the next word is read off.
    join: Linear,
    words: Linear,
    #[module(skip)]
    look: Look,
}

impl Translator {
    fn new(look: Look, sources: usize, targets: usize, device: &Device) -> Self {
        let lstm = || Lstm::new(device);
        let linear =
            |on: bool| on.then(|| LinearConfig::new(WIDTH, WIDTH).with_bias(false).init(device));
        let start = Initializer::KaimingUniform { gain: 0.5, fan_out_only: false };
        let placed = matches!(look, Look::Additive | Look::Local);
        Self {
            source: EmbeddingConfig::new(sources, WIDTH).init(device),
            target: EmbeddingConfig::new(targets, WIDTH).init(device),
            encoder: (0..LAYERS).map(|_| lstm()).collect(),
            decoder: (0..LAYERS).map(|_| lstm()).collect(),
            matrix: (look == Look::General)
                .then(|| start.init_with([WIDTH, WIDTH], Some(WIDTH), None, device)),
            vector: placed.then(|| start.init_with([WIDTH], Some(WIDTH), None, device)),
            query: linear(placed),
            key: linear(matches!(look, Look::Additive | Look::KeyValue)),
            value: linear(look == Look::KeyValue),
            join: LinearConfig::new(2 * WIDTH, WIDTH).init(device),
            words: LinearConfig::new(WIDTH, targets).init(device),
            look,
        }
    }

    /// The states of the top layer over the input, and each layer's last.
    fn encode(&self, input: Tensor<2, Int>) -> (Tensor<3>, Vec<LstmState<2>>) {
        stack(&self.encoder, self.source.forward(input), vec![None; LAYERS])
    }

    /// Logits of the word behind each of `said`, `[batch, words, targets]`.
    fn decode(
        &self,
        said: Tensor<2, Int>,
        states: Vec<LstmState<2>>,
        input: &Encoded,
    ) -> Result<(Tensor<3>, Vec<LstmState<2>>, Option<Tensor<4>>)> {
        let states = states.into_iter().map(Some).collect();
        let (rows, last) = stack(&self.decoder, self.target.forward(said), states);
        let (context, weights) = self.context(rows.clone(), input)?;
        let joined = self.join.forward(Tensor::cat(vec![rows, context], 2)).tanh();
        Ok((self.words.forward(joined), last, weights))
    }

    /// What each of the decoder's states reads off the encoder's, `[batch, words, WIDTH]`, and with which weights.
    fn context(&self, rows: Tensor<3>, input: &Encoded) -> Result<(Tensor<3>, Option<Tensor<4>>)> {
        let [batch, words, _] = rows.dims();
        let keys = input.states.clone();
        let through = |layer: &Option<Linear>, x: Tensor<3>| match layer {
            Some(layer) => layer.forward(x),
            None => x,
        };
        let (q, k, v) = match self.look {
            Look::None => return Ok((rows.zeros_like(), None)),
            Look::Dot | Look::General | Look::Local => (rows.clone(), keys.clone(), keys),
            Look::Static => (input.last.clone().unsqueeze_dim(1), keys.clone(), keys),
            Look::Additive => {
                let k = through(&self.key, keys.clone());
                (through(&self.query, rows.clone()), k, keys)
            }
            Look::KeyValue => {
                let k = through(&self.key, keys.clone());
                (rows.clone(), k, through(&self.value, keys))
            }
        };
        // One head.
        let [q, k, v] = [q, k, v].map(|x| x.unsqueeze_dim::<4>(1));
        let mut call = Attend::new(q, k, v).lengths(input.lengths.clone()).with_weights();
        // States are no products of many random numbers: 1/√WIDTH would make every look the same.
        call = call.scale(1.0);
        if let Some(matrix) = &self.matrix {
            call = call.with(|call| call.general(WIDTH as u32));
            call = call.operand(Operand::ScoreMatrix, matrix.val());
        }
        match (self.look, &self.vector) {
            (Look::Additive, Some(vector)) => {
                call = call.with(|call| call.additive(1.0));
                call = call.operand(Operand::ScoreV, vector.val());
            }
            (Look::Local, Some(vector)) => {
                // p = S · sigmoid(vᵀ tanh(W h)), and keys within 3 of it.
                let h = through(&self.query, rows).tanh() * vector.val().reshape([1, 1, WIDTH]);
                let length = input.lengths.clone().float().reshape([batch, 1]) - 1.0;
                let places = sigmoid(h.sum_dim(2).reshape([batch, words])) * length;
                call = call.with(|call| call.local_gaussian(3.0)).operand(Operand::Centers, places);
            }
            _ => {}
        }
        let Attended { o, weights, .. } = call.run()?;
        let context = o.squeeze_dim::<3>(1).expand([batch, words, WIDTH]);
        Ok((context, weights))
    }

    /// Says the likeliest word each time, at most `most` of them; for each input its words, without the end.
    fn say(&self, input: &Texts, most: usize, device: &Device) -> Result<Vec<Vec<usize>>> {
        let (input, mut states) = self.read(input, device);
        let batch = input.states.dims()[0];
        let mut said = vec![Vec::new(); batch];
        let mut last = vec![SOS; batch];
        for _ in 0..most {
            let told = Texts(last.iter().map(|word| vec![*word]).collect()).tensor(device);
            let (logits, next, _) = self.decode(told, states, &input)?;
            states = next;
            last = logits.argmax(2).into_data().iter::<i64>().map(|word| word as usize).collect();
            said.iter_mut().zip(&last).for_each(|(said, word)| said.push(*word));
        }
        let ended = |words: Vec<usize>| words.into_iter().take_while(|word| *word != EOS).collect();
        Ok(said.into_iter().map(ended).collect())
    }

    /// The weights with which each word of `said`, and its end, looks at its own input's words.
    fn weights(
        &self,
        input: &Texts,
        said: &[Vec<usize>],
        device: &Device,
    ) -> Result<Vec<Vec<f32>>> {
        let (encoded, states) = self.read(input, device);
        let told = said.iter().map(|words| [&[SOS], words.as_slice()].concat()).collect();
        let (_, _, weights) = self.decode(Texts(told).tensor(device), states, &encoded)?;
        let Some(weights) = weights else { return Ok(vec![Vec::new(); said.len()]) };
        let [_, _, rows, keys] = weights.dims();
        let weights: Vec<f32> = weights.into_data().iter::<f32>().collect();
        let own = |(i, words): (usize, &Vec<usize>)| {
            let of = &weights[i * rows * keys..(i + 1) * rows * keys];
            let row = |row: usize| &of[row * keys..row * keys + input.0[i].len()];
            (0..=words.len().min(rows - 1)).flat_map(row).copied().collect()
        };
        Ok(said.iter().enumerate().map(own).collect())
    }

    fn read(&self, input: &Texts, device: &Device) -> (Encoded, Vec<LstmState<2>>) {
        let (states, last) = self.encode(input.tensor(device));
        let top = last[LAYERS - 1].hidden.clone();
        (Encoded { states, last: top, lengths: input.lengths(device) }, last)
    }

    /// One step down the gradient of −ln of what each right word is given; returns it before the step.
    fn learn(
        self,
        optimizer: &mut Adam,
        input: &Texts,
        output: &Texts,
        device: &Device,
    ) -> Result<(Self, f32)> {
        let (encoded, states) = self.read(input, device);
        let framed = |first: Option<usize>, last: Option<usize>| {
            let frame = |words: &Vec<usize>| {
                first.into_iter().chain(words.iter().copied()).chain(last).collect()
            };
            Texts(output.0.iter().map(frame).collect()).tensor(device)
        };
        let (told, wanted) = (framed(Some(SOS), None), framed(None, Some(EOS)));
        let (logits, _, _) = self.decode(told, states, &encoded)?;
        let [batch, words, targets] = logits.dims();
        let loss = CrossEntropyLossConfig::new().with_pad_tokens(Some(vec![PAD])).init(device);
        let loss =
            loss.forward(logits.reshape([batch * words, targets]), wanted.reshape([batch * words]));
        let value = loss.clone().into_scalar::<f32>();
        let gradients = GradientsParams::from_grads(loss.backward(), &self);
        Ok((optimizer.step(RATE, self, gradients), value))
    }
}

type Adam = burn::optim::ModuleOptimizer;

/// A layer of LSTM. Burn's own makes two products for each of the four gates at every word; here it is one a word, and
/// one for all inputs before. What so small a model takes is the number of its kernels.
#[derive(Module, Debug)]
struct Lstm {
    /// From an input to the gates: forget, in, out, and what goes in.
    input: Linear,
    /// From the last state to the same.
    hidden: Linear,
}

impl Lstm {
    fn new(device: &Device) -> Self {
        let gates = LinearConfig::new(WIDTH, 4 * WIDTH);
        Self { input: gates.init(device), hidden: gates.with_bias(false).init(device) }
    }

    /// The states behind each input, `[batch, words, WIDTH]`, and the last.
    fn forward(&self, x: Tensor<3>, state: Option<LstmState<2>>) -> (Tensor<3>, LstmState<2>) {
        let [batch, words, _] = x.dims();
        let first = || LstmState::initial([batch, WIDTH], &x.device());
        let LstmState { mut cell, mut hidden } = state.unwrap_or_else(first);
        let gates = self.input.forward(x);
        let mut states = Vec::new();
        for word in gates.split(1, 1) {
            let gates = word.squeeze_dim::<2>(1) + self.hidden.forward(hidden);
            let open = sigmoid(gates.clone().slice([0..batch, 0..3 * WIDTH]));
            let new = gates.slice([0..batch, 3 * WIDTH..4 * WIDTH]).tanh();
            let [forget, write, read] = [0, 1, 2]
                .map(|gate| open.clone().slice([0..batch, gate * WIDTH..(gate + 1) * WIDTH]));
            cell = forget * cell + write * new;
            hidden = read * cell.clone().tanh();
            states.push(hidden.clone());
        }
        debug_assert_eq!(states.len(), words);
        (Tensor::stack(states, 1), LstmState::new(cell, hidden))
    }
}

/// Layers of LSTM, one upon the other: the top one's states and each one's last.
fn stack(
    layers: &[Lstm],
    mut x: Tensor<3>,
    states: Vec<Option<LstmState<2>>>,
) -> (Tensor<3>, Vec<LstmState<2>>) {
    let mut last = Vec::new();
    for (layer, state) in layers.iter().zip(states) {
        let (states, end) = layer.forward(x, state);
        x = states;
        last.push(end);
    }
    (x, last)
}

/// An input as the decoder sees it.
struct Encoded {
    /// `[batch, words, WIDTH]`.
    states: Tensor<3>,
    /// The last one, `[batch, WIDTH]`.
    last: Tensor<2>,
    /// Words of each input; behind them is padding.
    lengths: Tensor<1, Int>,
}

/// Word numbers of some texts.
#[derive(Clone)]
struct Texts(Vec<Vec<usize>>);

impl Texts {
    /// `[texts, longest]`, padded.
    fn tensor(&self, device: &Device) -> Tensor<2, Int> {
        let longest = self.0.iter().map(Vec::len).max().unwrap_or(0);
        let padded = |text: &Vec<usize>| {
            let rest = longest - text.len();
            text.iter()
                .copied()
                .chain(std::iter::repeat_n(PAD, rest))
                .map(|word| word as i32)
                .collect::<Vec<_>>()
        };
        let words: Vec<i32> = self.0.iter().flat_map(padded).collect();
        Tensor::from_data(TensorData::new(words, [self.0.len(), longest]), device)
    }

    fn lengths(&self, device: &Device) -> Tensor<1, Int> {
        let lengths: Vec<i32> = self.0.iter().map(|text| text.len() as i32).collect();
        Tensor::from_data(lengths.as_slice(), device)
    }
}

/// Digit strings of one length, and the same the other way round. Digits are words from 3 on.
fn digits(numbers: &mut Numbers, length: usize) -> (Texts, Texts) {
    let draw = |_| (0..length).map(|_| 3 + numbers.below(10)).collect::<Vec<_>>();
    let input: Vec<_> = (0..BATCH).map(draw).collect();
    let output = input.iter().map(|text| text.iter().rev().copied().collect()).collect();
    (Texts(input), Texts(output))
}

/// The lengths that are learned, in turn.
const LENGTHS: [usize; 3] = [2, 4, 6];

/// What became of learning to turn digit strings around.
pub(crate) struct Reversed {
    /// The share of new strings of each of [`LENGTHS`] that come out right to the last digit.
    pub(crate) shares: Vec<f32>,
    /// A new string, and what was said.
    shown: [Vec<usize>; 2],
    /// Where each digit of that and its end looked, `[digits and end, digits]`.
    pub(crate) weights: Vec<f32>,
}

/// Learns to turn digit strings around.
pub(crate) fn reverse(look: Look, steps: usize, device: &Device) -> Result<Reversed> {
    device.seed(7);
    let mut numbers = Numbers::new(1);
    let mut model = Translator::new(look, 13, 13, device);
    let mut optimizer = AdamConfig::new().init();
    let bar = shared::bar(&format!("{look:?}"), steps);
    for step in 0..steps {
        let (input, output) = digits(&mut numbers, LENGTHS[step % LENGTHS.len()]);
        let loss;
        (model, loss) = model.learn(&mut optimizer, &input, &output, device)?;
        bar.set_message(format!("loss {loss:.3}"));
        bar.inc(1);
    }
    bar.finish();
    let (mut shares, mut shown, mut weights) = (Vec::new(), Default::default(), Vec::new());
    for length in LENGTHS {
        let (input, output) = digits(&mut numbers, length);
        let said = model.say(&input, length + 1, device)?;
        let right = said.iter().zip(&output.0).filter(|(said, wanted)| said == wanted).count();
        shares.push(right as f32 / BATCH as f32);
        weights = model.weights(&input, &said, device)?.swap_remove(0);
        shown = [input.0[0].clone(), said[0].clone()];
    }
    Ok(Reversed { shares, shown, weights })
}

/// Phrases of English and Spanish. Words do not stand for words, nor in the same order.
const PHRASES: [(&str, &str); 16] = [
    ("let's go", "vamos"),
    ("good morning", "buenos días"),
    ("good night", "buenas noches"),
    ("thank you very much", "muchas gracias"),
    ("the red house", "la casa roja"),
    ("the white house", "la casa blanca"),
    ("the white cat", "el gato blanco"),
    ("the black cat sleeps", "el gato negro duerme"),
    ("the red cat eats", "el gato rojo come"),
    ("i eat bread", "como pan"),
    ("i drink water", "bebo agua"),
    ("we eat bread", "comemos pan"),
    ("we drink cold water", "bebemos agua fría"),
    ("where is the cat", "dónde está el gato"),
    ("where is the house", "dónde está la casa"),
    ("i love you", "te quiero"),
];

/// A phrase, what it means, and what is said for it.
pub(crate) struct Translation {
    pub(crate) phrase: String,
    pub(crate) wanted: String,
    pub(crate) said: String,
}

/// The words of one side of [`PHRASES`], from number 3 on, and the phrases in them.
fn words_of(side: impl Fn(&(&'static str, &'static str)) -> &'static str) -> (Vec<String>, Texts) {
    let mut words: Vec<String> = ["", "<SOS>", "<EOS>"].map(String::from).to_vec();
    let mut number = |word: &str| {
        words.iter().position(|known| known == word).unwrap_or_else(|| {
            words.push(word.to_string());
            words.len() - 1
        })
    };
    let texts = PHRASES.iter().map(|pair| side(pair).split(' ').map(&mut number).collect());
    let texts = Texts(texts.collect());
    (words, texts)
}

/// Learns [`PHRASES`], and says them.
pub(crate) fn translate(look: Look, steps: usize, device: &Device) -> Result<Vec<Translation>> {
    device.seed(8);
    let (sources, input) = words_of(|pair| pair.0);
    let (targets, output) = words_of(|pair| pair.1);
    let mut model = Translator::new(look, sources.len(), targets.len(), device);
    let mut optimizer = AdamConfig::new().init();
    let bar = shared::bar("phrases", steps);
    for _ in 0..steps {
        let loss;
        (model, loss) = model.learn(&mut optimizer, &input, &output, device)?;
        bar.set_message(format!("loss {loss:.3}"));
        bar.inc(1);
    }
    bar.finish();
    let said = model.say(&input, 6, device)?;
    let text = |words: &[String], text: &[usize]| {
        text.iter().map(|word| words[*word].as_str()).collect::<Vec<_>>().join(" ")
    };
    let translated = PHRASES.iter().zip(said).map(|(pair, said)| Translation {
        phrase: pair.0.into(),
        wanted: pair.1.into(),
        said: text(&targets, &said),
    });
    Ok(translated.collect())
}

fn main() -> Result<()> {
    let Some(device) = shared::device() else { return Ok(()) };
    println!("Digits the other way round; of {BATCH} new strings of each length come out right:\n");
    let looks = [
        Look::None,
        Look::Static,
        Look::Dot,
        Look::General,
        Look::Additive,
        Look::Local,
        Look::KeyValue,
    ];
    let mut learned = Vec::new();
    for look in looks {
        learned.push(reverse(look, 100, &device)?);
    }
    println!("\n{:<10} {}", "", LENGTHS.map(|length| format!("{length:<17}")).join(""));
    for (look, Reversed { shares, .. }) in looks.iter().zip(&learned) {
        let bar = |share: &f32| {
            let filled = "█".repeat((share * 10.0).round() as usize);
            format!("{filled:<10}{:4.0} %", share * 100.0)
        };
        let bars: Vec<_> = shares.iter().map(bar).collect();
        println!("{:<10} {}", format!("{look:?}"), bars.join(" "));
    }
    println!("\nwhere each digit looked, by dot products:\n");
    let Reversed { shown, weights, .. } = &learned[2];
    let [columns, rows] = shown
        .each_ref()
        .map(|text| -> Vec<String> { text.iter().map(|word| (word - 3).to_string()).collect() });
    let rows: Vec<_> = rows.into_iter().chain(["<EOS>".to_string()]).collect();
    shared::map(&rows, &columns, weights, 1.0);
    println!("\nPhrases:\n");
    let translated = translate(Look::Additive, 100, &device)?;
    for Translation { phrase, wanted, said } in &translated {
        let mark = if wanted == said { ' ' } else { '✗' };
        println!("{mark} {phrase:<22} {said}");
    }
    Ok(())
}
