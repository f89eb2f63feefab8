//! `heedful run`'s options for scores, normalisers and positions other than the usual ones.

use clap::{Args, ValueEnum};
use heedful::verify::data::CaseData;
use heedful::{Attention, Error, Inner, Normalizer, Rotary, RotaryConfig, RotaryScaling, Scalar};

use crate::files::{Elements, Source};

#[derive(Debug, Args)]
#[command(next_help_heading = "Scores, weights and positions")]
pub(crate) struct FormArgs {
    /// How q and k make a score; dot unless it is given.
    #[arg(long, value_enum)]
    score: Option<ScoreName>,
    /// Weights of --score additive, one per channel of q and k.
    #[arg(long, value_name = "ARRAY", required_if_eq("score", "additive"))]
    score_v: Option<String>,
    /// Factor inside the tanh of --score additive.
    #[arg(long, value_name = "A", default_value_t = 1.0, allow_hyphen_values = true)]
    inner_scale: f32,
    /// Matrix of --score general, [channels of q, channels of k].
    #[arg(long, value_name = "ARRAY", required_if_eq("score", "general"))]
    score_matrix: Option<String>,
    /// Factors of --score cosine, one per query head.
    #[arg(long, value_name = "ARRAY")]
    head_scale: Option<String>,
    /// Least norm that --score cosine divides by.
    #[arg(long, value_name = "EPS", default_value_t = 1e-12)]
    norm_eps: f32,
    /// How scores become weights; softmax unless it is given.
    #[arg(long, value_enum)]
    normalizer: Option<NormalizerName>,
    /// Divisor of --normalizer relu and relu-squared; the number of keys unless it is given.
    #[arg(long, value_name = "N")]
    divisor: Option<f32>,
    /// Bias of --normalizer sigmoid; minus the logarithm of the number of keys unless it is given.
    #[arg(long, value_name = "B", allow_hyphen_values = true)]
    sigmoid_bias: Option<f32>,
    /// Seed of --normalizer sample.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Rotate so many channels of q and k by position; keys of --past-k are as they were stored.
    #[arg(long, value_name = "DIM", conflicts_with = "cu_seqlens_q")]
    rotary: Option<u32>,
    /// Rotate as a model's config.json says, or the same object written here: rope_scaling, rope_theta, head_dim (or
    /// hidden_size and num_attention_heads), partial_rotary_factor, max_position_embeddings.
    #[arg(long, value_name = "FILE|JSON", conflicts_with_all = ["rotary", "cu_seqlens_q"])]
    rope_config: Option<String>,
    /// Rotate pairs of neighbours rather than halves.
    #[arg(long)]
    rotary_interleaved: bool,
    /// Base of the rotary frequencies.
    #[arg(long, value_name = "B", default_value_t = 10_000.0, conflicts_with = "rope_config")]
    rotary_base: f64,
    /// Rotary positions of the query rows and of the new keys, integers [batch, seq] or, for all sequences, [1, seq];
    /// counted from the length of the past unless they are given.
    #[arg(long, value_name = "ARRAY")]
    positions: Option<String>,
    /// Rotary positions of the new keys where they are others, integers [batch, keys] or, like --positions, [1, keys].
    #[arg(long, value_name = "ARRAY")]
    key_positions: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ScoreName {
    Dot,
    Additive,
    General,
    Cosine,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum NormalizerName {
    Softmax,
    Relu,
    ReluSquared,
    Sigmoid,
    Hard,
    Sample,
    Sparsemax,
    Entmax15,
    Monotonic,
    Raw,
}

/// What an option that is a JSON object or a file of one is called in messages, and its text.
pub(crate) fn json(option: &str, given: &str) -> Result<(String, String), Error> {
    if given.trim_start().starts_with('{') {
        return Ok((option.to_owned(), given.to_owned()));
    }
    let name = format!("{option} {given}");
    let text =
        std::fs::read_to_string(given).map_err(|e| Error::invalid(&name, e, "a readable file"))?;
    Ok((name, text))
}

impl FormArgs {
    /// Channels of q where they may differ from those of k.
    pub(crate) fn projects(&self) -> bool {
        self.score == Some(ScoreName::General)
    }

    /// Applies the options; `past` is the number of past keys.
    pub(crate) fn apply(
        &self,
        source: &mut Source,
        attention: &mut Attention,
        data: &mut CaseData,
        [dim_q, past]: [u32; 2],
    ) -> Result<(), Error> {
        let s = attention.shape;
        let mut floats = |option: &str, array: &Option<String>, axes: &[(&str, u32)]| {
            let Some(array) = array else { return Ok::<_, Error>(Vec::new()) };
            let values = source.of_shape(option, array, Elements::Floats, axes)?;
            Ok(values.into_iter().map(|x| f64::from(x as f32)).collect())
        };
        if let Some(score) = self.score {
            // One score in place of another.
            let dot = Attention {
                inner: Inner::Product,
                general: None,
                cosine: None,
                ..attention.clone()
            };
            *attention = match score {
                ScoreName::Dot => dot,
                ScoreName::Additive => dot.additive(self.inner_scale),
                ScoreName::General => dot.general(dim_q),
                ScoreName::Cosine if self.head_scale.is_some() => dot.cosine_scaled(self.norm_eps),
                ScoreName::Cosine => dot.cosine(self.norm_eps),
            };
        }
        let scaled = attention.cosine.is_some_and(|cosine| cosine.head_scale);
        for (wanted, name, given, there) in [
            (ScoreName::Additive, "score-v", &self.score_v, attention.inner.is_sum()),
            (ScoreName::General, "score-matrix", &self.score_matrix, attention.general.is_some()),
            (ScoreName::Cosine, "head-scale", &self.head_scale, scaled),
        ] {
            if given.is_some() && !there {
                let wanted = format!("--score {wanted:?}").to_lowercase();
                return Err(Error::invalid(format!("--{name}"), "another score", wanted));
            }
        }
        data.score_v = floats("score-v", &self.score_v, &[("dim", s.dim_qk)])?;
        data.score_matrix =
            floats("score-matrix", &self.score_matrix, &[("dim_q", dim_q), ("dim_k", s.dim_qk)])?;
        data.head_scale = floats("head-scale", &self.head_scale, &[("heads_q", s.heads_q)])?;
        if let Some(name) = self.normalizer {
            attention.normalizer = self.normalizer(name, s.seq_kv);
        }
        let config = self.config()?;
        match self.rotary.or(config.map(|config| config.dim)) {
            Some(dim) => self.rotate(source, attention, data, dim, past)?,
            None => self.turns_nothing()?,
        }
        Ok(())
    }

    /// Options of a rotation that there is not.
    fn turns_nothing(&self) -> Result<(), Error> {
        let given = [
            ("positions", self.positions.is_some()),
            ("key-positions", self.key_positions.is_some()),
            ("rotary-interleaved", self.rotary_interleaved),
        ];
        match given.iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some((name, _)) => {
                let wanted = "--rotary or --rope-config";
                Err(Error::invalid(format!("--{name}"), "no rotation", wanted))
            }
        }
    }

    fn config(&self) -> Result<Option<RotaryConfig>, Error> {
        let Some(given) = &self.rope_config else { return Ok(None) };
        let (name, text) = json("--rope-config", given)?;
        let wrong = |e| Error::invalid(name, e, "the fields of a model's config.json");
        serde_json::from_str(&text).map(Some).map_err(wrong)
    }

    /// Cosines and sines of a call's rotation, where none are given.
    pub(crate) fn tables(&self, rotary: &Rotary) -> Result<(Vec<f32>, Vec<f32>), Error> {
        let (dim, base) = (rotary.dim, self.rotary_base);
        let usual = RotaryConfig { dim, base, scaling: RotaryScaling::None };
        self.config()?.unwrap_or(usual).tables(rotary.table_rows)
    }

    fn normalizer(&self, name: NormalizerName, keys: u32) -> Normalizer {
        let keys = keys.max(1) as f32;
        let divisor = Scalar(self.divisor.unwrap_or(keys));
        match name {
            NormalizerName::Softmax => Normalizer::Softmax,
            NormalizerName::Relu => Normalizer::Relu { power: 1, divisor },
            NormalizerName::ReluSquared => Normalizer::Relu { power: 2, divisor },
            NormalizerName::Sigmoid => {
                Normalizer::Sigmoid { bias: Scalar(self.sigmoid_bias.unwrap_or(-keys.ln())) }
            }
            NormalizerName::Hard => Normalizer::Hard,
            NormalizerName::Sample => Normalizer::Sample { seed: self.seed },
            NormalizerName::Sparsemax => Normalizer::Sparsemax,
            NormalizerName::Entmax15 => Normalizer::Entmax15,
            NormalizerName::Monotonic => Normalizer::Monotonic,
            NormalizerName::Raw => Normalizer::Raw,
        }
    }

    fn rotate(
        &self,
        source: &mut Source,
        attention: &mut Attention,
        data: &mut CaseData,
        dim: u32,
        past: u32,
    ) -> Result<(), Error> {
        let s = attention.shape;
        let keys = s.seq_kv.saturating_sub(past);
        let mut ids = |option: &str, array: &Option<String>, n| -> Result<_, Error> {
            let Some(name) = array else { return Ok(None) };
            positions(source, option, name, [s.batch, n]).map(Some)
        };
        let of_rows = ids("positions", &self.positions, s.seq_q)?;
        let of_keys = ids("key-positions", &self.key_positions, keys)?;
        let shares = |ids: &Option<(Vec<u32>, bool)>| ids.as_ref().map(|(_, shared)| *shared);
        if shares(&of_rows).zip(shares(&of_keys)).is_some_and(|(rows, keys)| rows != keys) {
            let wanted = "as many sequences as --positions";
            return Err(Error::invalid("--key-positions", "another axis batch", wanted));
        }
        // One more than the last position of a side, whose rows are counted where they have no ids.
        let end = |ids: &Option<(Vec<u32>, bool)>, counted: u32| match ids {
            Some((ids, _)) => ids.iter().max().map_or(1, |last| last + 1),
            None => past + counted,
        };
        // Keys without ids of their own have those of the rows.
        let counted_keys = if of_rows.is_some() { 0 } else { keys };
        let table_rows = end(&of_rows, s.seq_q).max(end(&of_keys, counted_keys)).max(1);
        let rotary = Rotary {
            interleaved: self.rotary_interleaved,
            ids: of_rows.is_some(),
            key_ids: of_keys.is_some(),
            shared_ids: shares(&of_rows).or(shares(&of_keys)).unwrap_or(false),
            q_start: past,
            keys_from: past,
            k_start: past,
            ..Rotary::new(dim, table_rows)
        };
        data.positions = of_rows.unwrap_or_default().0;
        data.key_positions = of_keys.unwrap_or_default().0;
        *attention = attention.clone().rotary(rotary);
        Ok(())
    }
}

/// Position ids `[batch, n]`, or `[1, n]` for all sequences, and whether they are.
fn positions(
    source: &mut Source,
    option: &str,
    name: &str,
    [batch, n]: [u32; 2],
) -> Result<(Vec<u32>, bool), Error> {
    let found = source.get(option, name, Elements::Counts)?.shape;
    let shared = batch > 1 && found.first() == Some(&1);
    let seq = if option == "positions" { "seq_q" } else { "keys" };
    let axes = [("batch", if shared { 1 } else { batch }), (seq, n)];
    let ids = source.of_shape(option, name, Elements::Counts, &axes)?;
    if let Some(far) = ids.iter().find(|x| **x >= 1e7) {
        return Err(Error::invalid(format!("--{option}"), far, "positions below 10 million"));
    }
    Ok((ids.into_iter().map(|x| x as u32).collect(), shared))
}
