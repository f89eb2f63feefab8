//! Labels for words and for sentences: what fully connected layers cannot learn and self-attention
//! can.
//!
//! In "I saw a saw" the same word is a verb and a noun, so a layer that reads one word at a time
//! gives both the same tag. Here words that may be either stand in two kinds of sentences. In a
//! clause the words beside them tell, as in "we often watch the big fish". In a list only its
//! beginning does: after "to buy :" all are nouns, after "to do :" all are verbs, however far.
//! Five models of the same width learn the tags: fully connected layers on each word alone and on
//! each with its neighbours, then the same layers with self-attention between them, without
//! positions, with sinusoids and with learned positions. Without positions a sentence is a bag of
//! words: lists can be told, clauses cannot.
//!
//! Then one label for a whole sentence: is "the film was not really good" praise? One learned query
//! attends to the states of the words, and the answer is read from what it gathers.
//!
//! `cargo run --release --example tagger`

#[path = "shared/mod.rs"]
mod shared;

use burn::module::{Initializer, Module, Param};
use burn::nn::{
    Embedding, EmbeddingConfig, Linear, LinearConfig, PositionalEncoding, PositionalEncodingConfig,
    RmsNorm, RmsNormConfig,
};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::activation::{log_softmax, relu};
use burn::tensor::{Device, Int, Tensor, TensorData, s};
use heedful_burn::{Attend, GroupedAttention, GroupedAttentionConfig, MhaInput, Result};
use shared::Numbers;

/// Every word there is; the first one fills batches up.
const WORDS: [&str; 35] = [
    "", "I", "you", "we", "a", "the", "my", "dog", "bird", "big", "old", "often", "never", "to",
    "buy", "do", ":", ",", "saw", "can", "watch", "fish", "play", "film", "book", "song", "was",
    "not", "very", "really", "good", "great", "bad", "dull", "long",
];
/// Nouns as well as verbs.
const AMBIGUOUS: [&str; 5] = ["saw", "can", "watch", "fish", "play"];
const TAGS: [&str; 5] = ["noun", "verb", "determiner", "pronoun", "other"];
const CLASSES: [&str; 2] = ["bad", "good"];
/// Words of the longest sentence: a list of four.
const LONGEST: usize = 10;
/// Numbers in the state of a word.
const WIDTH: usize = 32;
const HEADS: usize = 4;
/// Blocks of layers, each on the states of the one before.
const BLOCKS: usize = 2;
/// Sentences of a step, and of a batch of a test.
const BATCH: usize = 32;
const STEPS: usize = 60;
/// Adam's.
const RATE: f64 = 6e-3;
/// Batches of sentences that no model was trained on.
const TESTS: usize = 4;

fn main() {
    if let Some(learned) = learn() {
        learned.print();
    }
}

/// What the models can do after training, in percent of what they were asked in new sentences.
pub(crate) struct Learned {
    pub(crate) taggers: Vec<Tagger>,
    pub(crate) judges: Vec<Judge>,
    /// Where the query of the last judge looks.
    pub(crate) looks: Vec<Look>,
}

/// A model of words, and how many ambiguous ones it tags right.
pub(crate) struct Tagger {
    pub(crate) name: &'static str,
    /// Where the words beside them tell.
    pub(crate) clauses: f32,
    /// Where only the beginning of the sentence tells.
    pub(crate) lists: f32,
    /// Its tags of "I saw a saw".
    pub(crate) tags: Vec<&'static str>,
}

/// A model of sentences, and how many it judges right.
pub(crate) struct Judge {
    pub(crate) name: &'static str,
    /// Where the adjective tells.
    pub(crate) plain: f32,
    /// Where a "not" before the adjective turns it.
    pub(crate) turned: f32,
}

/// A sentence, the class that it is given, and what the query gives each word.
pub(crate) struct Look {
    pub(crate) words: Vec<&'static str>,
    pub(crate) class: &'static str,
    pub(crate) weights: Vec<f32>,
}

/// Trains and tests every model; `None` where there is no device.
pub(crate) fn learn() -> Option<Learned> {
    let device = shared::device()?;
    Some(learn_on(&device).expect("tensors of one device, which fit each other"))
}

fn learn_on(device: &Device) -> Result<Learned> {
    let (mut taggers, mut judges, mut looks) = (Vec::new(), Vec::new(), Vec::new());
    for parts in &PARTS {
        let model = train(parts, device)?;
        let [near, far] = test(&model, parts.task, device)?;
        match parts.task.places {
            1 => {
                judges.push(Judge { name: parts.name, plain: near, turned: far });
                looks = look(&model, device)?;
            }
            _ => {
                let shown = Batch::new(&[Sentence::shown("I saw a saw")], &TAGGING, device);
                let labels = model.labels(&shown)?;
                let tags = labels[..4].iter().map(|label| TAGS[*label]).collect();
                taggers.push(Tagger { name: parts.name, clauses: near, lists: far, tags });
            }
        }
    }
    Ok(Learned { taggers, judges, looks })
}

/// A kind of question, with the sentences that it is asked of.
struct Task {
    /// Where an answer is asked for: at every word, or once.
    places: usize,
    labels: &'static [&'static str],
    draw: fn(&mut Numbers) -> Sentence,
}

static TAGGING: Task = Task { places: LONGEST, labels: &TAGS, draw: Sentence::tagged };
static JUDGING: Task = Task { places: 1, labels: &CLASSES, draw: Sentence::review };

/// Words with what is to be said of them.
#[derive(Default)]
struct Sentence {
    words: Vec<&'static str>,
    /// Of each place.
    labels: Vec<usize>,
    /// Places that count in a test.
    asked: Vec<usize>,
    /// Whether what decides is elsewhere than at the word and beside it.
    far: bool,
}

fn pick(numbers: &mut Numbers, words: &[&'static str]) -> &'static str {
    words[numbers.below(words.len())]
}

fn place(name: &str, names: &[&str]) -> usize {
    names.iter().position(|other| *other == name).expect("a name of the list")
}

impl Sentence {
    fn shown(text: &'static str) -> Self {
        Self { words: text.split(' ').collect(), ..Self::default() }
    }

    fn push(&mut self, word: &'static str, tag: &str) {
        if AMBIGUOUS.contains(&word) {
            self.asked.push(self.words.len());
        }
        self.words.push(word);
        self.labels.push(place(tag, &TAGS));
    }

    fn tagged(numbers: &mut Numbers) -> Self {
        match numbers.below(2) {
            0 => Self::clause(numbers),
            _ => Self::list(numbers),
        }
    }

    /// Somebody does something to something: "the dog often saw a big can".
    fn clause(numbers: &mut Numbers) -> Self {
        let mut all = Self::default();
        if numbers.below(2) == 0 {
            all.push(pick(numbers, &["I", "you", "we"]), "pronoun");
        } else {
            all.push(pick(numbers, &["a", "the", "my"]), "determiner");
            all.push(pick(numbers, &["dog", "bird"]), "noun");
        }
        if numbers.below(3) == 0 {
            all.push(pick(numbers, &["often", "never"]), "other");
        }
        all.push(pick(numbers, &AMBIGUOUS), "verb");
        all.push(pick(numbers, &["a", "the", "my"]), "determiner");
        if numbers.below(3) == 0 {
            all.push(pick(numbers, &["big", "old"]), "other");
        }
        all.push(pick(numbers, &AMBIGUOUS), "noun");
        all
    }

    /// Things or doings: "to buy : fish , saw", "to do : fish , play , watch".
    fn list(numbers: &mut Numbers) -> Self {
        let mut all = Self { far: true, ..Self::default() };
        let tag = pick(numbers, &["noun", "verb"]);
        all.push("to", "other");
        all.push(if tag == "noun" { "buy" } else { "do" }, "other");
        all.push(":", "other");
        for i in 0..=numbers.below(4) {
            if i > 0 {
                all.push(",", "other");
            }
            all.push(pick(numbers, &AMBIGUOUS), tag);
        }
        all
    }

    /// Praise or blame: "the film was not really good", "the film was good , not long". A "not"
    /// before the adjective turns it, one behind it does not.
    fn review(numbers: &mut Numbers) -> Self {
        let mut words = vec!["the", pick(numbers, &["film", "book", "song"]), "was"];
        let far = numbers.below(2) == 0;
        words.extend(far.then_some("not"));
        for _ in 0..numbers.below(3) {
            words.push(pick(numbers, &["very", "really"]));
        }
        let good = numbers.below(2) == 0;
        words.push(pick(numbers, if good { &["good", "great"] } else { &["bad", "dull"] }));
        if numbers.below(2) == 0 {
            words.extend([",", "not", "long"]);
        }
        let label = place(if good != far { "good" } else { "bad" }, &CLASSES);
        Self { words, labels: vec![label], asked: vec![0], far }
    }
}

/// Sentences on the device.
struct Batch {
    /// `[batch, 1 + LONGEST + 1]`: one more on each side, for windows.
    words: Tensor<2, Int>,
    /// How many words are not padding, `[batch]`.
    lengths: Tensor<1, Int>,
    /// The share of the loss that falls to each label of each place, `[batch, places, labels]`.
    wanted: Tensor<3>,
}

impl Batch {
    fn new(sentences: &[Sentence], task: &Task, device: &Device) -> Self {
        let (batch, places, labels) = (sentences.len(), task.places, task.labels.len());
        let mut words = vec![0; batch * (LONGEST + 2)];
        let mut wanted = vec![0.0; batch * places * labels];
        let share = 1.0 / sentences.iter().map(|one| one.labels.len()).sum::<usize>().max(1) as f32;
        for (b, sentence) in sentences.iter().enumerate() {
            for (i, word) in sentence.words.iter().enumerate() {
                words[b * (LONGEST + 2) + 1 + i] = place(word, &WORDS) as i32;
            }
            for (i, label) in sentence.labels.iter().enumerate() {
                wanted[(b * places + i) * labels + label] = share;
            }
        }
        let lengths: Vec<i32> = sentences.iter().map(|one| one.words.len() as i32).collect();
        let wanted = TensorData::new(wanted, [batch, places, labels]);
        Self {
            words: Tensor::from_data(TensorData::new(words, [batch, LONGEST + 2]), device),
            lengths: Tensor::from_data(lengths.as_slice(), device),
            wanted: Tensor::from_data(wanted, device),
        }
    }

    fn draw(numbers: &mut Numbers, task: &Task, device: &Device) -> (Vec<Sentence>, Self) {
        let sentences: Vec<Sentence> = (0..BATCH).map(|_| (task.draw)(numbers)).collect();
        let batch = Self::new(&sentences, task, device);
        (sentences, batch)
    }
}

/// What a model is made of; the rest is the same in all.
struct Parts {
    name: &'static str,
    task: &'static Task,
    /// A word is read together with the one before and the one behind it.
    window: bool,
    /// Blocks begin with self-attention.
    attends: bool,
    sinusoids: bool,
    learned_positions: bool,
}

static PARTS: [Parts; 7] = [
    Parts::new("each word alone", &TAGGING, [false, false, false, false]),
    Parts::new("with its neighbours", &TAGGING, [true, false, false, false]),
    Parts::new("self-attention", &TAGGING, [false, true, false, false]),
    Parts::new("… with sinusoids", &TAGGING, [false, true, true, false]),
    Parts::new("… with learned positions", &TAGGING, [false, true, false, true]),
    Parts::new("one query over the words", &JUDGING, [false, false, false, false]),
    Parts::new("… after self-attention", &JUDGING, [false, true, true, false]),
];

impl Parts {
    const fn new(name: &'static str, task: &'static Task, has: [bool; 4]) -> Self {
        let [window, attends, sinusoids, learned_positions] = has;
        Self { name, task, window, attends, sinusoids, learned_positions }
    }
}

/// Attention if there is any, then two fully connected layers, both added to what they read.
#[derive(Module, Debug)]
struct Block {
    attention: Option<(RmsNorm, GroupedAttention)>,
    norm: RmsNorm,
    wide: Linear,
    narrow: Linear,
}

impl Block {
    fn new(parts: &Parts, device: &Device) -> Self {
        let norm = || RmsNormConfig::new(WIDTH).init(device);
        let attention = || GroupedAttentionConfig::new(WIDTH, HEADS, HEADS).init(device);
        Self {
            attention: parts.attends.then(|| (norm(), attention())),
            norm: norm(),
            wide: LinearConfig::new(WIDTH, 2 * WIDTH).with_bias(false).init(device),
            narrow: LinearConfig::new(2 * WIDTH, WIDTH).with_bias(false).init(device),
        }
    }

    /// States `[batch, LONGEST, WIDTH]` to states; words from `lengths` on are not looked at.
    fn forward(&self, mut x: Tensor<3>, lengths: &Tensor<1, Int>) -> Result<Tensor<3>> {
        if let Some((norm, attention)) = &self.attention {
            let input = MhaInput::self_attn(norm.forward(x.clone()));
            let seen = attention.forward(input.lengths(lengths.clone()))?;
            x = x + seen.context;
        }
        // As one matrix: Burn would multiply one of ten rows for each sentence, which is slower.
        let y = self.wide.forward(self.norm.forward(x.clone()).flatten::<2>(0, 1));
        Ok(self.narrow.forward(relu(y)).reshape(x.dims()) + x)
    }
}

#[derive(Module, Debug)]
struct Model {
    words: Embedding,
    /// From a word and its neighbours to its state.
    window: Option<Linear>,
    sinusoids: Option<PositionalEncoding>,
    /// `[LONGEST, WIDTH]`.
    positions: Option<Param<Tensor<2>>>,
    blocks: Vec<Block>,
    /// What gathers a sentence to one state, `[WIDTH]`.
    query: Option<Param<Tensor<1>>>,
    labels: Linear,
}

impl Model {
    fn new(parts: &Parts, device: &Device) -> Self {
        let counted = PositionalEncodingConfig::new(WIDTH).with_max_sequence_size(LONGEST);
        let normal = Initializer::Normal { mean: 0.0, std: 1.0 };
        Self {
            words: EmbeddingConfig::new(WORDS.len(), WIDTH).init(device),
            window: parts.window.then(|| LinearConfig::new(3 * WIDTH, WIDTH).init(device)),
            sinusoids: parts.sinusoids.then(|| counted.init(device)),
            positions: parts.learned_positions.then(|| normal.init([LONGEST, WIDTH], device)),
            blocks: (0..BLOCKS).map(|_| Block::new(parts, device)).collect(),
            query: (parts.task.places == 1).then(|| normal.init([WIDTH], device)),
            labels: LinearConfig::new(WIDTH, parts.task.labels.len()).init(device),
        }
    }

    /// The states of words, `[batch, LONGEST, WIDTH]`.
    fn states(&self, batch: &Batch) -> Result<Tensor<3>> {
        let at = |i: usize| self.words.forward(batch.words.clone().slice(s![.., i..i + LONGEST]));
        let mut x = match &self.window {
            Some(layer) => layer.forward(Tensor::cat(vec![at(0), at(1), at(2)], 2)),
            None => at(1),
        };
        if let Some(sinusoids) = &self.sinusoids {
            x = sinusoids.forward(x);
        }
        if let Some(positions) = &self.positions {
            x = x + positions.val().unsqueeze();
        }
        self.blocks.iter().try_fold(x, |x, block| block.forward(x, &batch.lengths))
    }

    /// One query attends to the states of each sentence: output `[batch, 1, 1, WIDTH]`.
    fn gather(&self, query: &Param<Tensor<1>>, batch: &Batch) -> Result<Attend> {
        let states = self.states(batch)?.unsqueeze_dim::<4>(1);
        let query = query.val().reshape([1, 1, 1, WIDTH]);
        Ok(Attend::new(query, states.clone(), states).lengths(batch.lengths.clone()))
    }

    /// Scores of labels, `[batch, places, labels]`.
    fn forward(&self, batch: &Batch) -> Result<Tensor<3>> {
        let states = match &self.query {
            Some(query) => self.gather(query, batch)?.run()?.o.squeeze_dim::<3>(1),
            None => self.states(batch)?,
        };
        Ok(self.labels.forward(states))
    }

    /// The label with the highest score, of all places.
    fn labels(&self, batch: &Batch) -> Result<Vec<usize>> {
        let best = self.forward(batch)?.argmax(2).into_data();
        Ok(best.iter::<i64>().map(|label| label as usize).collect())
    }
}

fn train(parts: &Parts, device: &Device) -> Result<Model> {
    device.seed(1);
    let mut numbers = Numbers::new(1);
    let mut model = Model::new(parts, device);
    let mut optimizer = AdamConfig::new().init();
    let bar = shared::bar(parts.name, STEPS);
    for step in 0..STEPS {
        let (_, batch) = Batch::draw(&mut numbers, parts.task, device);
        let scores = model.forward(&batch)?;
        let loss = (log_softmax(scores, 2) * batch.wanted).sum().neg();
        // Reading a number waits for the device: not at every step.
        if step % 10 == 0 {
            bar.set_message(format!("loss {:.3}", loss.clone().into_scalar::<f32>()));
        }
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(RATE, model, gradients);
        bar.inc(1);
    }
    bar.finish();
    Ok(model)
}

/// Percent right in new sentences: where what decides is near, where it is far.
fn test(model: &Model, task: &Task, device: &Device) -> Result<[f32; 2]> {
    let mut numbers = Numbers::new(2);
    let (mut right, mut asked) = ([0; 2], [0; 2]);
    for _ in 0..TESTS {
        let (sentences, batch) = Batch::draw(&mut numbers, task, device);
        let labels = model.labels(&batch)?;
        for (one, labels) in sentences.iter().zip(labels.chunks(task.places)) {
            let far = usize::from(one.far);
            asked[far] += one.asked.len();
            right[far] += one.asked.iter().filter(|i| labels[**i] == one.labels[**i]).count();
        }
    }
    Ok([0, 1].map(|far| 100.0 * right[far] as f32 / asked[far] as f32))
}

/// Where the query looks in three sentences.
fn look(model: &Model, device: &Device) -> Result<Vec<Look>> {
    let Some(query) = &model.query else { return Ok(Vec::new()) };
    let texts =
        ["the film was really good", "the film was not really good", "the song was bad , not long"];
    let look = |text| {
        let shown = Sentence::shown(text);
        let batch = Batch::new(std::slice::from_ref(&shown), &JUDGING, device);
        let class = CLASSES[model.labels(&batch)?[0]];
        let weights = model.gather(query, &batch)?.with_weights().run()?.weights;
        let weights = weights.expect("they were asked for").into_data();
        let weights = weights.iter::<f32>().take(shown.words.len()).collect();
        Ok(Look { words: shown.words, class, weights })
    };
    texts.into_iter().map(look).collect()
}

impl Learned {
    fn print(&self) {
        println!(
            "\nOf a hundred words that may be nouns or verbs, tagged right in new sentences:\n"
        );
        println!("{:26}{:>8}{:>8}   I saw a saw", "", "clauses", "lists");
        for Tagger { name, clauses, lists, tags } in &self.taggers {
            println!("{name:26}{clauses:8.0}{lists:8.0}   {}", tags.join(" "));
        }
        println!("\nOf a hundred new reviews, judged right:\n");
        println!("{:26}{:>8}{:>8}", "", "plain", "turned");
        for Judge { name, plain, turned } in &self.judges {
            println!("{name:26}{plain:8.0}{turned:8.0}");
        }
        println!("\nWhere the query of the last one looks, and what it answers:");
        for Look { words, class, weights } in &self.looks {
            let columns: Vec<String> = words.iter().map(|word| word.to_string()).collect();
            println!();
            shared::map(&[format!("{class}:")], &columns, weights, 1.0);
        }
    }
}
