//! Word vectors from nothing but text: which words stand near a word says what kind of word it is.
//!
//! Two ways to learn them, on one small text of made-up sentences. Skip-gram: a word is to tell the
//! words around it. CBOW, the continuous bag of words: the words around are to tell the word in the
//! middle. The bag is attention from N places to 1: the keys are the places, the values are the
//! words that stand there, and one learned query asks. With all keys at zero the weights are equal
//! and their sum is the classic mean; what is learned is how much each place counts.
//!
//! Both are trained by negative sampling: the right word is to score high, a few words that are
//! drawn at random are to score low, and the softmax over all words is never computed. Afterwards
//! words of one class, animals or days, have each other as nearest neighbours, and so do two films
//! of which the text says the same.
//!
//! `cargo run --release --example word2vec`

#[path = "shared/mod.rs"]
mod shared;

use burn::module::{Module, Param};
use burn::nn::Embedding;
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::activation::log_sigmoid;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use heedful_burn::Attend;
use shared::Numbers;

/// Words that may stand in for one another. The films' sentences are the same for either.
const CLASSES: [(&str, &[&str]); 8] = [
    ("FILM", &["Troll_2", "Gymkata"]),
    ("ANIMAL", &["dog", "cat", "horse", "cow", "goat", "fox", "bear", "mouse"]),
    ("FOOD", &["bread", "cheese", "soup", "rice", "fish", "honey", "cake"]),
    ("DRINK", &["water", "milk", "tea", "coffee", "juice", "cocoa"]),
    ("PLACE", &["garden", "kitchen", "barn", "forest", "field", "park", "yard"]),
    ("DAY", &["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]),
    ("LOOK", &["small", "big", "grey", "young", "brown", "quick", "lazy"]),
    ("REST", &["slept", "waited", "played", "sat", "sang"]),
];
/// Sentences: a word in capitals is any word of that class; one with a question mark may be
/// missing.
const PATTERNS: [&str; 10] = [
    "the LOOK? ANIMAL ate fresh? FOOD in the PLACE",
    "the LOOK? ANIMAL drank DRINK on DAY",
    "on DAY the LOOK? ANIMAL REST in the PLACE",
    "in the PLACE a LOOK? ANIMAL REST all day",
    "the LOOK? ANIMAL and the LOOK? ANIMAL REST together",
    "every DAY a LOOK? ANIMAL ate fresh? FOOD",
    "we had fresh? FOOD and warm? DRINK on DAY",
    "they drank DRINK with the LOOK? ANIMAL in the PLACE",
    "some FOOD and DRINK for the LOOK? ANIMAL",
    "a LOOK? ANIMAL ate all the FOOD on DAY",
];
/// How many sentences are made of each pattern.
const SENTENCES: usize = 40;
/// How often it is said of each film that it is great.
const PRAISE: usize = 20;

/// Words on either side that count as near.
const WINDOW: usize = 3;
const PLACES: usize = 2 * WINDOW;
const DIM: usize = 16;
const NEGATIVES: usize = 5;
/// Examples of a step. The gradients of an embedding's rows are added up one example after another,
/// so that a larger batch takes longer on a GPU too.
const BATCH: usize = 256;
const STEPS: usize = 200;
/// The factor on q·k, far below 1/√DIM: the query and the keys learn all their numbers in one
/// direction, and one place would have all the weight before the words mean anything.
const SCALE: f32 = 0.01;
/// How far Adam moves a number in the first step; in the last hardly at all.
const RATE: f64 = 0.03;

fn main() {
    let text = Text::write();
    let words: usize = text.sentences.iter().map(Vec::len).sum();
    println!("{} sentences, {words} words, {} different:", text.sentences.len(), text.words.len());
    for sentence in text.sentences.iter().step_by(SENTENCES) {
        println!("  {}", text.say(sentence).join(" "));
    }
    // Without an adapter it has been said how to get one.
    let Some(learned) = learn() else { return };
    println!("\nA word's row against its one-hot vector times the matrix: {} off", learned.one_hot);
    for (name, outcome) in [("Skip-gram", &learned.skip_gram), ("CBOW", &learned.cbow)] {
        outcome.show(name);
    }
    println!("\nCBOW: how much each place counts");
    let columns = (0..PLACES).map(|place| format!("{:+}", offset(place))).collect::<Vec<_>>();
    println!("{:>8}{}", "", columns.iter().map(|name| format!("{name:>6}")).collect::<String>());
    for (name, weights) in [("before", &learned.weights_before), ("after", &learned.weights)] {
        let line: String = weights.iter().map(|weight| format!("{weight:6.3}")).collect();
        println!("{name:>8}{line}");
    }
    let both = [learned.weights_before, learned.weights].concat();
    println!();
    shared::map(&["before".into(), "after".into()], &columns, &both, 0.5);
}

/// What both ways learned from the same text.
pub(crate) struct Learned {
    pub(crate) skip_gram: Outcome,
    pub(crate) cbow: Outcome,
    /// What each place counts, from the word `WINDOW` before to the word `WINDOW` after: at first …
    pub(crate) weights_before: Vec<f32>,
    /// … and in the end.
    pub(crate) weights: Vec<f32>,
    /// The largest difference between a word's row and its one-hot vector times the matrix.
    pub(crate) one_hot: f32,
}

/// What one way learned.
pub(crate) struct Outcome {
    pub(crate) before: Neighbours,
    pub(crate) after: Neighbours,
    /// The loss of each step that was looked at, the first and the last among them.
    pub(crate) losses: Vec<f32>,
}

/// Who is nearest to whom.
pub(crate) struct Neighbours {
    /// The share of words of a class whose nearest neighbour is of the same class.
    pub(crate) own_class: f32,
    /// Whether the two films are each other's nearest.
    pub(crate) films: bool,
    /// Some words, with their three nearest, the nearest first.
    pub(crate) shown: Vec<(&'static str, Vec<&'static str>)>,
}

/// Trains both ways; `None` where there is no adapter.
pub(crate) fn learn() -> Option<Learned> {
    let device = shared::device()?;
    let text = Text::write();
    let (skip_gram, outcome) = train(&text, &text.skip_grams(), Model::new(&text, None, &device));
    let context = Context::new(&device);
    let weights_before = context.weights();
    let (bag, cbow) = train(&text, &text.bags(), Model::new(&text, Some(context), &device));
    let weights = bag.context.as_ref().map(Context::weights)?;
    Some(Learned {
        skip_gram: outcome,
        cbow,
        weights_before,
        weights,
        one_hot: one_hot_off(&skip_gram.words),
    })
}

/// Sentences of words that are numbers.
struct Text {
    words: Vec<&'static str>,
    sentences: Vec<Vec<usize>>,
}

impl Text {
    /// The same text in every run: patterns in turn, each class filled in at random.
    fn write() -> Self {
        let mut numbers = Numbers::new(1);
        let words = CLASSES.iter().flat_map(|(_, members)| members.iter().copied()).collect();
        let mut text = Self { words, sentences: Vec::new() };
        for pattern in PATTERNS {
            for _ in 0..SENTENCES {
                let fill = |word: &'static str| {
                    let needed = word.trim_end_matches('?');
                    let kept = needed == word || numbers.below(2) == 0;
                    let members = CLASSES.iter().find(|(class, _)| *class == needed);
                    let any = members.map(|(_, members)| members[numbers.below(members.len())]);
                    kept.then_some(any.unwrap_or(needed))
                };
                text.add(pattern.split_whitespace().filter_map(fill).collect());
            }
        }
        for _ in 0..PRAISE {
            CLASSES[0].1.iter().for_each(|film| text.add(vec![film, "is", "great"]));
        }
        text
    }

    fn add(&mut self, sentence: Vec<&'static str>) {
        let mut number = |word| match self.words.iter().position(|known| *known == word) {
            Some(known) => known,
            None => {
                self.words.push(word);
                self.words.len() - 1
            }
        };
        self.sentences.push(sentence.into_iter().map(&mut number).collect());
    }

    fn say(&self, sentence: &[usize]) -> Vec<&'static str> {
        sentence.iter().map(|word| self.words[*word]).collect()
    }

    /// The class of a word, if it has one: `the` and `ate` have none.
    fn class(&self, word: usize) -> Option<usize> {
        CLASSES.iter().position(|(_, members)| members.contains(&self.words[word]))
    }

    /// The words around each word: CBOW's question. Places beyond a sentence's ends are empty.
    fn bags(&self) -> Vec<Example> {
        let bags = self.sentences.iter().flat_map(|sentence| {
            sentence.iter().enumerate().map(|(middle, answer)| {
                let at = |place| middle.checked_add_signed(offset(place));
                let word = |place| at(place).and_then(|at| sentence.get(at)).copied();
                Example { given: (0..PLACES).map(word).collect(), answer: *answer }
            })
        });
        bags.collect()
    }

    /// The same the other way round: the word in the middle is given, and each word around is an
    /// answer of its own.
    fn skip_grams(&self) -> Vec<Example> {
        let bags = self.bags().into_iter();
        let pairs = bags.flat_map(|Example { given, answer: middle }| {
            let around = given.into_iter().flatten();
            around.map(move |answer| Example { given: vec![Some(middle)], answer })
        });
        pairs.collect()
    }

    /// Sums of how likely each word is to be drawn as a wrong answer: as frequent as in the text,
    /// to the power of ¾, as word2vec has it, so that rare words are drawn more than they occur.
    fn odds(&self) -> Vec<f32> {
        let mut counts = vec![0.0_f32; self.words.len()];
        self.sentences.iter().flatten().for_each(|word| counts[*word] += 1.0);
        let sums = counts.iter().scan(0.0, |sum, count| {
            *sum += count.powf(0.75);
            Some(*sum)
        });
        sums.collect()
    }
}

/// How far a place of the window is from the middle, which is none of them.
fn offset(place: usize) -> isize {
    let place = place as isize - WINDOW as isize;
    if place < 0 { place } else { place + 1 }
}

/// What is given, and the word that is to be told from it.
struct Example {
    given: Vec<Option<usize>>,
    answer: usize,
}

/// Examples as tensors, each with wrong answers beside its own.
struct Batch {
    /// `[batch, places]`.
    given: Tensor<2, Int>,
    /// Where nothing is given, `[batch, 1, 1, places]`.
    missing: Tensor<4, Bool>,
    /// The answer, then `NEGATIVES` words that it is not: `[batch, 1 + NEGATIVES]`.
    answers: Tensor<2, Int>,
}

impl Batch {
    fn draw(examples: &[Example], odds: &[f32], numbers: &mut Numbers, device: &Device) -> Self {
        let (mut given, mut missing, mut answers) = (Vec::new(), Vec::new(), Vec::new());
        let total = odds.last().copied().unwrap_or(0.0);
        for _ in 0..BATCH {
            let example = &examples[numbers.below(examples.len())];
            // An empty place is read as word 0 and then not attended to.
            given.extend(example.given.iter().map(|word| word.unwrap_or(0) as i32));
            missing.extend(example.given.iter().map(Option::is_none));
            answers.push(example.answer as i32);
            let mut wrong = 0;
            while wrong < NEGATIVES {
                let drawn = (numbers.next() + 1.0) / 2.0 * total;
                let word = odds.partition_point(|sum| *sum <= drawn).min(odds.len() - 1);
                if word != example.answer {
                    answers.push(word as i32);
                    wrong += 1;
                }
            }
        }
        let places = given.len() / BATCH;
        Self {
            given: Tensor::from_data(TensorData::new(given, [BATCH, places]), device),
            missing: Tensor::from_data(TensorData::new(missing, [BATCH, 1, 1, places]), device),
            answers: Tensor::from_data(TensorData::new(answers, [BATCH, 1 + NEGATIVES]), device),
        }
    }
}

/// Two vectors for each word: what it means where it is given, and where it is the answer.
#[derive(Module, Debug)]
struct Model {
    words: Embedding,
    answers: Embedding,
    /// How several given words become one vector; skip-gram has one word and needs none.
    context: Option<Context>,
}

impl Model {
    fn new(text: &Text, context: Option<Context>, device: &Device) -> Self {
        let mut numbers = Numbers::new(2);
        // Small, so that what is learned soon outweighs where it started.
        let mut embedding = || {
            let start = numbers.tensor_on([text.words.len(), DIM], device);
            Embedding { weight: Param::from_tensor(start.mul_scalar(0.1)) }
        };
        Self { words: embedding(), answers: embedding(), context }
    }

    /// The mean over a batch of −ln σ(h·u) for the answer u and −ln σ(−h·u) for each wrong one.
    fn loss(&self, batch: Batch, signs: &Tensor<3>) -> Tensor<1> {
        let given = self.words.forward(batch.given);
        let hidden: Tensor<3> = match &self.context {
            Some(context) => {
                let bag = context.attend(given).blocked(batch.missing).run();
                bag.expect("shapes that fit each other").o.squeeze_dim(1)
            }
            None => given,
        };
        let scores = (hidden * self.answers.forward(batch.answers)).sum_dim(2);
        log_sigmoid(scores * signs.clone()).sum_dim(1).mean().neg()
    }
}

/// Attention over the words around: one query, and a key for each place.
#[derive(Module, Debug)]
struct Context {
    query: Param<Tensor<4>>,
    places: Param<Tensor<4>>,
}

impl Context {
    /// Keys of zero: every place counts the same, the classic mean. The query starts elsewhere: of
    /// q·k each gradient is the other's factor, and from two zeros neither would ever move.
    fn new(device: &Device) -> Self {
        let query = Numbers::new(3).tensor_on([1, 1, 1, DIM], device);
        Self {
            query: Param::from_tensor(query),
            places: Param::from_tensor(Tensor::zeros([1, 1, PLACES, DIM], device)),
        }
    }

    /// The call for the words' vectors `[batch, places, DIM]`; its output is `[batch, 1, 1, DIM]`.
    fn attend(&self, words: Tensor<3>) -> Attend {
        // One query and one row of keys serve the whole batch.
        let (query, keys) = (self.query.val(), self.places.val());
        Attend::new(query, keys, words.unsqueeze_dim(1)).scale(SCALE)
    }

    /// What each place counts where a word stands in all of them. The words do not matter.
    fn weights(&self) -> Vec<f32> {
        let words = Tensor::zeros([1, PLACES, DIM], &self.places.val().device());
        let bag = self.attend(words).with_weights().run().expect("shapes that fit each other");
        bag.weights.map(host).unwrap_or_default()
    }
}

fn train(text: &Text, examples: &[Example], mut model: Model) -> (Model, Outcome) {
    let device = model.words.weight.val().device();
    let name = if model.context.is_some() { "CBOW" } else { "skip-gram" };
    let (bar, odds) = (shared::bar(name, STEPS), text.odds());
    let mut signs = vec![-1.0; 1 + NEGATIVES];
    signs[0] = 1.0;
    let signs = Tensor::from_data(TensorData::new(signs, [1, 1 + NEGATIVES, 1]), &device);
    let before = Neighbours::of(text, &model.words);
    let (mut numbers, mut optimizer, mut losses) =
        (Numbers::new(4), AdamConfig::new().init(), Vec::new());
    for step in 0..STEPS {
        let loss = model.loss(Batch::draw(examples, &odds, &mut numbers, &device), &signs);
        // Reading a loss waits for the device: now and then is enough.
        if step % 10 == 0 || step + 1 == STEPS {
            losses.push(loss.clone().into_scalar::<f32>());
            bar.set_message(format!("loss {:.3}", losses[losses.len() - 1]));
        }
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        // Large steps first; the last are small, as the answers drawn differ from step to step.
        let rate = RATE * (1.0 - step as f64 / STEPS as f64);
        model = optimizer.step(rate, model, gradients);
        bar.inc(1);
    }
    bar.finish();
    let after = Neighbours::of(text, &model.words);
    (model, Outcome { before, after, losses })
}

impl Neighbours {
    fn of(text: &Text, words: &Embedding) -> Self {
        let vectors = host(words.weight.val());
        let length = |row: &[f32]| row.iter().map(|x| x * x).sum::<f32>().sqrt();
        let rows: Vec<&[f32]> = vectors.chunks(DIM).collect();
        let cosine = |a: usize, b: usize| {
            let dot: f32 = rows[a].iter().zip(rows[b]).map(|(a, b)| a * b).sum();
            dot / (length(rows[a]) * length(rows[b]))
        };
        let nearest = |word: usize| -> Vec<usize> {
            let mut others: Vec<usize> = (0..rows.len()).filter(|other| *other != word).collect();
            others.sort_by(|a, b| cosine(word, *b).total_cmp(&cosine(word, *a)));
            others
        };
        let classed: Vec<usize> = (0..rows.len()).filter(|w| text.class(*w).is_some()).collect();
        let own = |word: &&usize| text.class(nearest(**word)[0]) == text.class(**word);
        let own_class = classed.iter().filter(own).count() as f32 / classed.len() as f32;
        let mut first = 0;
        let shown = CLASSES.iter().map(|(_, members)| {
            let three = &nearest(first)[..3];
            first += members.len();
            (members[0], text.say(three))
        });
        let shown = shown.collect();
        // The films are words 0 and 1.
        Self { own_class, films: nearest(0)[0] == 1 && nearest(1)[0] == 0, shown }
    }
}

impl Outcome {
    fn show(&self, name: &str) {
        let [first, last] = [self.losses.first(), self.losses.last()];
        let [first, last] = [first, last].map(|loss| loss.copied().unwrap_or(f32::NAN));
        println!("\n{name}: loss {first:.3}, then {last:.3}");
        println!("  {:<10}{:<30}nearest after", "", "nearest before");
        for ((word, before), (_, after)) in self.before.shown.iter().zip(&self.after.shown) {
            println!("  {word:<10}{:<30}{}", before.join(", "), after.join(", "));
        }
        let [before, after] = [&self.before, &self.after].map(|at| 100.0 * at.own_class);
        println!("  nearest of its own class: {before:.0} % of words, then {after:.0} %");
        let said = |at: &Neighbours| if at.films { "yes" } else { "no" };
        let (before, after) = (said(&self.before), said(&self.after));
        println!("  Troll_2 and Gymkata each other's nearest: {before}, then {after}");
    }
}

/// The shortcut of every embedding: a one-hot vector times a matrix is a row of it, so the row is
/// read and nothing is multiplied. How far the two are apart, over all words: not at all.
fn one_hot_off(words: &Embedding) -> f32 {
    let matrix = words.weight.val();
    let count = matrix.dims()[0];
    let all = Tensor::<1, Int>::arange(0..count as i64, &matrix.device());
    let product = all.clone().one_hot::<2>(count).float().matmul(matrix);
    let rows = words.forward(all.unsqueeze()).squeeze_dim(0);
    (product - rows).abs().max().into_scalar()
}

fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}
