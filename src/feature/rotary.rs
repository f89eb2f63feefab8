//! Angles of rotary positions: frequencies as models stretch them, and their tables.
//!
//! Formulas are those of `transformers` (`modeling_rope_utils.py`, version 5), in f64 and rounded once.

use crate::error::{Error, Result};

/// How rotary frequencies are stretched for sequences longer than those of training.
///
/// `trained` is the length of the sequences in training, `original_max_position_embeddings` in a model's
/// configuration; [`RotaryConfig`](crate::RotaryConfig) reads one.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub enum RotaryScaling {
    /// Not at all.
    #[default]
    None,
    /// Positions are divided by the factor (Chen et al., 2023).
    Linear(f64),
    /// The base grows so that the lowest frequency is divided by the factor.
    Ntk(f64),
    /// The same by the factor that a sequence of as many positions as there are rows of angles needs: the base
    /// times (factor · rows / trained − (factor − 1))^(dim / (dim − 2)) from `trained` rows on.
    DynamicNtk {
        /// The factor.
        factor: f64,
        /// Length of the sequences in training.
        trained: f64,
    },
    /// High frequencies stay, low ones are divided, those between are mixed.
    Yarn(Yarn),
    /// Llama 3.1: waves longer than `trained / low_freq` positions are divided by the factor, those shorter than
    /// `trained / high_freq` stay, those between are mixed.
    Llama3 {
        /// The factor.
        factor: f64,
        /// Waves in the length of training from which frequencies are no longer divided.
        low_freq: f64,
        /// Waves in the length of training from which they stay as they are.
        high_freq: f64,
        /// Length of the sequences in training.
        trained: f64,
    },
    /// A divisor for each frequency (Ding et al., 2024).
    LongRope(LongRope),
    /// Frequencies of the whole head divided by the factor, of which the first `share` turn and the others do not.
    Proportional {
        /// The factor.
        factor: f64,
        /// Share of the pairs that turn.
        share: f64,
    },
}

/// YaRN (Peng et al., 2023).
///
/// Cosines and sines are multiplied with `attention_factor` where it is given, else with m(`mscale`) /
/// m(`mscale_all_dim`) where both are, else with m(1), where m(a) = 0.1 a ln(factor) + 1, and 1 up to a factor of 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Yarn {
    /// What low frequencies are divided by.
    pub factor: f64,
    /// Length of the sequences in training.
    pub trained: f64,
    /// Turns in that length from which frequencies stay as they are.
    pub beta_fast: f64,
    /// Turns up to which they are divided by the whole factor.
    pub beta_slow: f64,
    /// See above.
    pub mscale: Option<f64>,
    /// See above.
    pub mscale_all_dim: Option<f64>,
    /// See above.
    pub attention_factor: Option<f64>,
    /// Whether the range that is mixed is widened to whole channels.
    pub truncate: bool,
}

/// LongRoPE: one list of divisors for sequences as long as in training, one for longer ones; there are as many
/// positions as rows of angles.
///
/// Cosines and sines are multiplied with `attention_factor` where it is given, else with
/// √(1 + ln(factor) / ln(trained)), and 1 up to a factor of 1.
#[derive(Debug, Clone, PartialEq)]
pub struct LongRope {
    /// Divisors of the dim / 2 frequencies up to `trained` positions.
    pub short: Vec<f64>,
    /// Divisors for more.
    pub long: Vec<f64>,
    /// Length of the sequences in training.
    pub trained: f64,
    /// Longest sequences over those of training.
    pub factor: f64,
    /// See above.
    pub attention_factor: Option<f64>,
}

impl Yarn {
    /// Turns from 32 down to 1 are mixed, and cosines and sines are multiplied with 0.1 ln(factor) + 1.
    pub fn new(factor: f64, trained: f64) -> Self {
        Self {
            factor,
            trained,
            beta_fast: 32.0,
            beta_slow: 1.0,
            mscale: None,
            mscale_all_dim: None,
            attention_factor: None,
            truncate: true,
        }
    }

    /// What DeepSeek's models multiply the scale of scores with beside: m(`mscale_all_dim`)², 1 without it.
    pub fn score_factor(&self) -> f64 {
        given(self.mscale_all_dim).map_or(1.0, |mscale| self.magnitude(mscale).powi(2))
    }

    fn magnitude(&self, mscale: f64) -> f64 {
        if self.factor <= 1.0 { 1.0 } else { 0.1 * mscale * self.factor.ln() + 1.0 }
    }

    fn attention_factor(&self) -> f64 {
        let both = given(self.mscale).zip(given(self.mscale_all_dim));
        let inferred = both.map_or(self.magnitude(1.0), |(mscale, all)| {
            self.magnitude(mscale) / self.magnitude(all)
        });
        self.attention_factor.unwrap_or(inferred)
    }

    fn frequencies(&self, plain: &[f64], base: f64) -> Vec<f64> {
        let dim = 2.0 * plain.len() as f64;
        // The channel whose wave turns so often in the length of training.
        let channel = |turns: f64| {
            dim * (self.trained / (turns * std::f64::consts::TAU)).ln() / (2.0 * base.ln())
        };
        let [low, high] = [channel(self.beta_fast), channel(self.beta_slow)];
        let [low, high] = if self.truncate { [low.floor(), high.ceil()] } else { [low, high] };
        let [low, high] = [low.max(0.0), high.min(dim - 1.0)];
        let width = if low == high { 0.001 } else { high - low };
        let mixed = |(m, near): (usize, &f64)| {
            let far = ((m as f64 - low) / width).clamp(0.0, 1.0);
            near / self.factor * far + near * (1.0 - far)
        };
        plain.iter().enumerate().map(mixed).collect()
    }
}

impl LongRope {
    fn attention_factor(&self) -> f64 {
        let inferred = match self.factor <= 1.0 {
            true => 1.0,
            false => (1.0 + self.factor.ln() / self.trained.ln()).sqrt(),
        };
        self.attention_factor.unwrap_or(inferred)
    }

    fn divisors(&self, rows: u32) -> &[f64] {
        if f64::from(rows) > self.trained { &self.long } else { &self.short }
    }
}

/// What is given and not 0, which models write for none.
fn given(x: Option<f64>) -> Option<f64> {
    x.filter(|x| *x != 0.0)
}

impl RotaryScaling {
    /// The angles per position of `dim / 2` pairs, in a sequence of `rows` positions, and what cosines and sines
    /// are multiplied with.
    ///
    /// # Errors
    /// An invalid-argument error for an odd `dim`, a base or a parameter that gives no finite frequencies, and lists
    /// of another length than `dim / 2`.
    pub fn frequencies(&self, dim: u32, base: f64, rows: u32) -> Result<(Vec<f64>, f64)> {
        if dim == 0 || !dim.is_multiple_of(2) {
            return Err(Error::invalid("rotary dim", dim, "an even number"));
        }
        if !(base > 1.0 && base.is_finite()) {
            return Err(Error::invalid("rotary base", base, "a finite number > 1"));
        }
        self.validate(dim)?;
        let d = f64::from(dim);
        let of_base = |base: f64| -> Vec<f64> {
            (0..dim / 2).map(|m| base.powf(-2.0 * f64::from(m) / d)).collect()
        };
        let (plain, stretched) = (of_base(base), |by: f64| of_base(base * by.powf(d / (d - 2.0))));
        Ok(match self {
            Self::None => (plain, 1.0),
            Self::Linear(factor) => (plain.iter().map(|x| x / factor).collect(), 1.0),
            Self::Ntk(factor) => (stretched(*factor), 1.0),
            Self::DynamicNtk { factor, trained } => {
                let length = f64::from(rows).max(*trained);
                (stretched(factor * length / trained - (factor - 1.0)), 1.0)
            }
            Self::Yarn(yarn) => (yarn.frequencies(&plain, base), yarn.attention_factor()),
            Self::Llama3 { factor, low_freq, high_freq, trained } => {
                let limits = [*low_freq, *high_freq];
                (plain.iter().map(|x| llama3(*x, *factor, limits, *trained)).collect(), 1.0)
            }
            Self::LongRope(long) => {
                let divided = plain.iter().zip(long.divisors(rows)).map(|(x, by)| x / by);
                (divided.collect(), long.attention_factor())
            }
            Self::Proportional { factor, share } => {
                let turning = (share * d / 2.0) as usize;
                let turned = |(m, x): (usize, &f64)| if m < turning { x / factor } else { 0.0 };
                (plain.iter().enumerate().map(turned).collect(), 1.0)
            }
        })
    }

    /// Tables of cos and sin of position · frequency, `[rows, dim / 2]` each, in f64 and rounded once; frequencies are
    /// base^(−2m/dim), stretched.
    ///
    /// ```
    /// let (cos, sin) = heedful::RotaryScaling::None.tables(4, 10_000.0, 3)?;
    /// assert_eq!((cos.len(), cos[0], sin[0]), (6, 1.0, 0.0));
    /// assert_eq!(sin[5], (2.0_f64 * 0.01).sin() as f32);
    /// # Ok::<(), heedful::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`frequencies`](Self::frequencies).
    pub fn tables(&self, dim: u32, base: f64, rows: u32) -> Result<(Vec<f32>, Vec<f32>)> {
        let (frequencies, magnitude) = self.frequencies(dim, base, rows)?;
        let angles = (0..rows).flat_map(|p| frequencies.iter().map(move |x| f64::from(p) * x));
        let table = angles.map(|x| ((x.cos() * magnitude) as f32, (x.sin() * magnitude) as f32));
        Ok(table.unzip())
    }

    fn validate(&self, dim: u32) -> Result<()> {
        match self {
            Self::None => Ok(()),
            Self::Linear(factor) | Self::Ntk(factor) => positive("factor", *factor),
            Self::DynamicNtk { factor, trained } => {
                positive("factor", *factor)?;
                positive(TRAINED, *trained)
            }
            Self::Yarn(yarn) => yarn.validate(),
            Self::Llama3 { factor, low_freq, high_freq, trained } => {
                positive("factor", *factor)?;
                positive("low_freq_factor", *low_freq)?;
                positive(TRAINED, *trained)?;
                if *high_freq > *low_freq && high_freq.is_finite() {
                    return Ok(());
                }
                let wanted = format!("more than low_freq_factor, {low_freq}");
                Err(wrong("high_freq_factor", *high_freq, wanted))
            }
            Self::LongRope(long) => long.validate(dim),
            Self::Proportional { factor, share } => {
                positive("factor", *factor)?;
                if (0.0..=1.0).contains(share) {
                    return Ok(());
                }
                Err(wrong("partial_rotary_factor", *share, "0 to 1"))
            }
        }
    }
}

impl Yarn {
    fn validate(&self) -> Result<()> {
        for (name, x) in [("factor", self.factor), (TRAINED, self.trained)] {
            positive(name, x)?;
        }
        for (name, x) in [("beta_slow", self.beta_slow), ("beta_fast", self.beta_fast)] {
            positive(name, x)?;
        }
        let magnitudes = [
            ("mscale", self.mscale),
            ("mscale_all_dim", self.mscale_all_dim),
            ("attention_factor", self.attention_factor),
        ];
        for (name, x) in magnitudes {
            if x.is_some_and(|x| !(x >= 0.0 && x.is_finite())) {
                return Err(wrong(name, x.unwrap_or_default(), "a finite number >= 0"));
            }
        }
        Ok(())
    }
}

impl LongRope {
    fn validate(&self, dim: u32) -> Result<()> {
        for (name, list) in [("short_factor", &self.short), ("long_factor", &self.long)] {
            if list.len() != dim as usize / 2 {
                let wanted = format!("{}, one for each pair of {dim} channels", dim / 2);
                return Err(wrong(name, format!("{} numbers", list.len()), wanted));
            }
            list.iter().try_for_each(|x| positive(name, *x))?;
        }
        positive("factor", self.factor)?;
        if !(self.trained > 1.0 && self.trained.is_finite()) {
            return Err(wrong(TRAINED, self.trained, "a finite number > 1"));
        }
        match self.attention_factor {
            Some(x) if !(x >= 0.0 && x.is_finite()) => {
                Err(wrong("attention_factor", x, "a finite number >= 0"))
            }
            _ => Ok(()),
        }
    }
}

/// The length of training, as models call it.
const TRAINED: &str = "original_max_position_embeddings";

fn wrong(name: &str, found: impl std::fmt::Display, wanted: impl std::fmt::Display) -> Error {
    Error::invalid(format!("rotary scaling {name}"), found, wanted)
}

fn positive(name: &str, x: f64) -> Result<()> {
    if x > 0.0 && x.is_finite() {
        return Ok(());
    }
    Err(wrong(name, x, "a finite number > 0"))
}

/// A frequency by Llama 3.1's rule.
fn llama3(x: f64, factor: f64, [low, high]: [f64; 2], trained: f64) -> f64 {
    let wave = std::f64::consts::TAU / x;
    if wave < trained / high {
        return x;
    }
    if wave > trained / low {
        return x / factor;
    }
    let smooth = (trained / wave - low) / (high - low);
    (1.0 - smooth) * x / factor + smooth * x
}
