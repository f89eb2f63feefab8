//! A sentence as a call: a vector for each word, and what the visitor chose.

use heedful::layer::MultiHeadAttention;
use heedful::reference::{Inputs, OwnedInputs};
use heedful::{
    Alibi, Align, Attention, Error, Normalizer, Result, Rotary, RotaryScaling, Scalar, Shape,
    WeightsAt,
};
use serde::Deserialize;

/// Channels of a head.
const DIM: u32 = 16;
/// Most words that a map has room for.
pub(crate) const MOST_WORDS: usize = 28;
/// Most heads.
const MOST_HEADS: u32 = 8;

/// What the visitor chose.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// The sentence.
    pub(crate) sentence: String,
    /// Heads.
    pub(crate) heads: u32,
    /// Whether q and k are projections of their own rather than the words' vectors.
    pub(crate) project: bool,
    /// How places are told.
    pub(crate) positions: Positions,
    /// Whether words see only those before them and themselves.
    pub(crate) causal: bool,
    /// Words that are seen on either side; all where it is `None`.
    pub(crate) window: Option<u32>,
    /// Divides the scores.
    pub(crate) temperature: f32,
    /// How scores become weights.
    pub(crate) weights: Weights,
    /// What is drawn by lot is drawn by this.
    pub(crate) seed: u64,
    /// Whether scores are shown instead of weights.
    pub(crate) scores: bool,
}

/// How places are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Positions {
    /// Not at all.
    None,
    /// Sinusoidal vectors, added to those of the words.
    Added,
    /// q and k are turned by their places.
    Rotary,
    /// Scores fall with the distance, each head's by a slope of its own.
    Alibi,
}

/// How scores become weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the words of `heedful::Normalizer`")]
pub(crate) enum Weights {
    Softmax,
    Entmax15,
    Sparsemax,
    Relu,
    Sigmoid,
    Hard,
    Sample,
    Monotonic,
}

/// A call and its tensors.
#[derive(Debug)]
pub(crate) struct Sentence {
    /// Its words, as the map names rows and keys.
    pub(crate) words: Vec<String>,
    /// How many words it has, those that a map has no room for among them.
    pub(crate) of: usize,
    /// What is asked.
    pub(crate) attention: Attention,
    tensors: OwnedInputs,
}

impl Sentence {
    /// The call for what the visitor chose.
    ///
    /// # Errors
    /// Invalid argument for numbers out of range and a sentence without words.
    pub(crate) fn new(settings: &Settings) -> Result<Self> {
        let mut words = words(&settings.sentence);
        let of = words.len();
        words.truncate(MOST_WORDS);
        if words.is_empty() {
            return Err(Error::invalid("sentence", "no word", "one at least"));
        }
        if !(1..=MOST_HEADS).contains(&settings.heads) {
            return Err(Error::invalid("heads", settings.heads, format!("1 to {MOST_HEADS}")));
        }
        if !(settings.temperature > 0.0 && settings.temperature.is_finite()) {
            return Err(Error::invalid("temperature", settings.temperature, "more than 0"));
        }
        let n = words.len() as u32;
        let shape = Shape::self_attention(1, settings.heads, n, DIM);
        let scale = 1.0 / (settings.temperature * (DIM as f32).sqrt());
        let at = if settings.scores { WeightsAt::AfterBias } else { WeightsAt::Probabilities };
        let mut call = Attention::new(shape)
            .scale(scale)
            .normalizer(settings.weights.normalizer(n, settings.seed))
            .with_weights(at);
        if settings.causal {
            call = call.causal(Align::TopLeft);
        }
        if let Some(reach) = settings.window {
            call = call.window(Some(reach), Some(reach), Align::TopLeft);
        }
        let [q, k, v] = rows(&words, settings);
        let mut tensors = OwnedInputs { q, k, v, ..OwnedInputs::default() };
        match settings.positions {
            Positions::None | Positions::Added => {}
            Positions::Alibi => {
                call = call.alibi(Align::TopLeft);
                tensors.alibi_slopes =
                    Alibi::standard_slopes(settings.heads).into_iter().map(f64::from).collect();
            }
            Positions::Rotary => {
                call = call.rotary(Rotary::new(DIM, n));
                let (cos, sin) = RotaryScaling::None.tables(DIM, 1e4, n)?;
                tensors.rotary_cos = cos.into_iter().map(f64::from).collect();
                tensors.rotary_sin = sin.into_iter().map(f64::from).collect();
            }
        }
        Ok(Self { words, of, attention: call, tensors })
    }

    /// The tensors.
    pub(crate) fn inputs(&self) -> Inputs<'_> {
        self.tensors.inputs()
    }

    /// The weights that a map shows of what the device returned: `None` where a key is hidden, whose score is −∞.
    ///
    /// # Errors
    /// Internal, where there are none, or what cannot be drawn: the kernels returned what no such call yields.
    pub(crate) fn shown(&self, weights: Option<Vec<f64>>) -> Result<Vec<Option<f64>>> {
        let scores = self.attention.weights == Some(WeightsAt::AfterBias);
        let n = self.words.len();
        let wanted = self.attention.shape.heads_q as usize * n * n;
        let wrong = |what: String| Error::internal("a map of weights", what);
        let weights = weights.ok_or_else(|| wrong("no weights came back".into()))?;
        if weights.len() != wanted {
            return Err(wrong(format!("{} weights came back, wanted {wanted}", weights.len())));
        }
        let value = |(i, x): (usize, f64)| match x {
            f64::NEG_INFINITY if scores => Ok(None),
            x if x.is_finite() => Ok(Some(x)),
            x => {
                let (head, row, key) = (i / n / n + 1, i / n % n + 1, i % n + 1);
                Err(wrong(format!("head {head} has {x} from word {row} to word {key}")))
            }
        };
        weights.into_iter().enumerate().map(value).collect()
    }
}

impl Weights {
    fn normalizer(self, keys: u32, seed: u64) -> Normalizer {
        let keys = keys as f32;
        match self {
            Self::Softmax => Normalizer::Softmax,
            Self::Entmax15 => Normalizer::Entmax15,
            Self::Sparsemax => Normalizer::Sparsemax,
            Self::Relu => Normalizer::Relu { power: 1, divisor: Scalar(keys) },
            Self::Sigmoid => Normalizer::Sigmoid { bias: Scalar(-keys.ln()) },
            Self::Hard => Normalizer::Hard,
            Self::Sample => Normalizer::Sample { seed },
            Self::Monotonic => Normalizer::Monotonic,
        }
    }
}

/// Words and marks.
fn words(sentence: &str) -> Vec<String> {
    let mut words = Vec::new();
    for chunk in sentence.split_whitespace() {
        let mut word = String::new();
        for letter in chunk.chars() {
            let mark = !(letter.is_alphanumeric() || letter == '\'' || letter == '’');
            if mark && !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            if mark { words.push(letter.into()) } else { word.push(letter) }
        }
        if !word.is_empty() {
            words.push(word);
        }
    }
    words
}

/// A word in small letters.
fn lower(word: &str) -> String {
    #[cfg(target_arch = "wasm32")]
    return js_sys::JsString::from(word).to_lower_case().into();
    #[cfg(not(target_arch = "wasm32"))]
    word.to_lowercase()
}

/// q, k and v, `[heads, words, DIM]`: each head has channels of its own of every word's vector.
fn rows(words: &[String], settings: &Settings) -> [Vec<f64>; 3] {
    let (heads, dim) = (settings.heads as usize, DIM as usize);
    let places = match settings.positions {
        Positions::Added => {
            MultiHeadAttention::sinusoidal(words.len() as u32, settings.heads * DIM)
        }
        _ => vec![0.0; words.len() * heads * dim],
    };
    let vectors: Vec<Vec<f64>> = words
        .iter()
        .zip(places.chunks(heads * dim))
        .map(|(word, place)| {
            let vector = noise(hash(&lower(word)), heads * dim);
            vector.iter().zip(place).map(|(x, p)| x + f64::from(*p)).collect()
        })
        .collect();
    let plain = |head: usize, word: &[f64]| word[head * dim..(head + 1) * dim].to_vec();
    let projected = |name: u64, head: usize, word: &[f64]| {
        let matrix = noise(name << 8 | head as u64, dim * dim);
        let word = &word[head * dim..(head + 1) * dim];
        let product = |row: &[f64]| row.iter().zip(word).map(|(w, x)| w * x).sum::<f64>();
        matrix.chunks(dim).map(|row| product(row) / (dim as f64).sqrt()).collect()
    };
    let tensor = |of: &dyn Fn(usize, &[f64]) -> Vec<f64>| {
        let all = (0..heads).flat_map(|head| vectors.iter().map(move |word| (head, word)));
        all.flat_map(|(head, word)| of(head, word)).collect::<Vec<f64>>()
    };
    let v = tensor(&plain);
    if settings.project {
        let of = |name: u64| tensor(&|head, word| projected(name, head, word));
        return [of(1), of(2), v];
    }
    [v.clone(), v.clone(), v]
}

/// FNV-1a.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Numbers about normal, of mean 0 and variance 1: each the sum of twelve uniform ones (SplitMix64).
fn noise(seed: u64, n: usize) -> Vec<f64> {
    let mut state = seed;
    let mut uniform = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as f64 / u64::MAX as f64
    };
    (0..n).map(|_| (0..12).map(|_| uniform()).sum::<f64>() - 6.0).collect()
}

#[cfg(test)]
mod tests {
    use heedful::Result;

    use super::{Positions, Sentence, Settings, Weights, words};

    fn settings() -> Settings {
        Settings {
            sentence: "I saw a saw".into(),
            heads: 2,
            project: false,
            positions: Positions::None,
            causal: false,
            window: None,
            temperature: 1.0,
            weights: Weights::Softmax,
            seed: 1,
            scores: false,
        }
    }

    /// Head 0 of the map, a row for each word.
    fn map(settings: &Settings) -> Result<Vec<Vec<f64>>> {
        let sentence = Sentence::new(settings)?;
        let outputs = sentence.attention.validate()?.reference(&sentence.inputs())?;
        let n = sentence.words.len();
        Ok(outputs.weights.unwrap_or_default().chunks(n).take(n).map(<[f64]>::to_vec).collect())
    }

    #[test]
    fn a_word_looks_at_itself_wherever_it_stands_until_places_are_told() -> Result<()> {
        let rows = map(&settings())?;
        assert_eq!(rows[1], rows[3], "one word, one vector");
        assert!((rows[1][1] - rows[1][3]).abs() < 1e-12 && rows[1][1] > 0.4, "{rows:?}");
        for positions in [Positions::Added, Positions::Rotary, Positions::Alibi] {
            let rows = map(&Settings { positions, ..settings() })?;
            assert!((rows[1][1] - rows[1][3]).abs() > 1e-3, "{positions:?}: {rows:?}");
        }
        Ok(())
    }

    #[test]
    fn what_is_chosen_shows() -> Result<()> {
        let causal = map(&Settings { causal: true, ..settings() })?;
        assert_eq!((causal[0][0], causal[0][1]), (1.0, 0.0));
        let near = map(&Settings { window: Some(1), ..settings() })?;
        assert!(near[0][2] == 0.0 && near[2][1] > 0.0 && near[2][0] == 0.0, "{near:?}");
        let even = map(&Settings { temperature: 1e6, ..settings() })?;
        assert!((even[0][0] - 0.25).abs() < 1e-3, "{even:?}");
        let hard = map(&Settings { weights: Weights::Hard, ..settings() })?;
        assert_eq!(hard[3], [0.0, 1.0, 0.0, 0.0], "the first of equals");
        let sparse = map(&Settings { weights: Weights::Sparsemax, ..settings() })?;
        assert!(
            sparse.concat().contains(&0.0) && (sparse[0].iter().sum::<f64>() - 1.0).abs() < 1e-9
        );
        let projected = map(&Settings { project: true, ..settings() })?;
        assert_ne!(projected, map(&settings())?);
        let scores = map(&Settings { scores: true, causal: true, ..settings() })?;
        assert_eq!(scores[0][1], f64::NEG_INFINITY);
        Ok(())
    }

    #[test]
    fn only_hidden_scores_have_no_number() -> Result<()> {
        let [weights, scores] = [false, true].map(|scores| {
            Sentence::new(&Settings { sentence: "a b".into(), scores, ..settings() })
        });
        let (weights, scores) = (weights?, scores?);
        let returned = |x: f64| Some([x].repeat(8));
        assert_eq!(weights.shown(returned(0.5))?, [Some(0.5); 8]);
        assert_eq!(scores.shown(returned(f64::NEG_INFINITY))?, [None; 8]);
        assert!(weights.shown(returned(f64::NEG_INFINITY)).is_err());
        for wrong in [f64::NAN, f64::INFINITY] {
            assert!(
                weights.shown(returned(wrong)).is_err() && scores.shown(returned(wrong)).is_err()
            );
        }
        assert!(weights.shown(None).is_err() && weights.shown(Some(vec![0.5; 7])).is_err());
        Ok(())
    }

    #[test]
    fn marks_are_words_and_the_sentence_has_an_end() {
        assert_eq!(words("Don't stop, I saw."), ["Don't", "stop", ",", "I", "saw", "."]);
        let long = Sentence::new(&Settings { sentence: "saw ".repeat(100), ..settings() });
        assert!(long.is_ok_and(|x| (x.words.len(), x.of) == (super::MOST_WORDS, 100)));
        assert!(Sentence::new(&Settings { sentence: " ".into(), ..settings() }).is_err());
        assert!(Sentence::new(&Settings { temperature: 0.0, ..settings() }).is_err());
        assert!(Sentence::new(&Settings { heads: 9, ..settings() }).is_err());
    }
}
