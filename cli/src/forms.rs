//! `heedful run`'s options for scores, normalisers and positions other than the usual ones.

use clap::{Args, ValueEnum};
use heedful::verify::data::CaseData;
use heedful::{Attention, Error, Normalizer, Rotary, RotaryScaling, Scalar, rotary_tables};

use crate::files::{Elements, Source};

#[derive(Debug, Args)]
pub(crate) struct FormArgs {
    /// How q and k make a score.
    #[arg(long, value_enum, default_value_t)]
    score: ScoreName,
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
    /// How scores become weights.
    #[arg(long, value_enum, default_value_t)]
    normalizer: NormalizerName,
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
    /// Rotate pairs of neighbours rather than halves.
    #[arg(long, requires = "rotary")]
    rotary_interleaved: bool,
    /// Base of the rotary frequencies.
    #[arg(long, value_name = "B", default_value_t = 10_000.0)]
    rotary_base: f64,
    /// Rotary positions of the query rows and of the new keys, integers [batch, seq]; counted from the length of the
    /// past unless they are given.
    #[arg(long, value_name = "ARRAY", requires = "rotary")]
    positions: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum ScoreName {
    #[default]
    Dot,
    Additive,
    General,
    Cosine,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum NormalizerName {
    #[default]
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

impl FormArgs {
    /// Channels of q where they may differ from those of k.
    pub(crate) fn projects(&self) -> bool {
        self.score == ScoreName::General
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
        *attention = match self.score {
            ScoreName::Dot => attention.clone(),
            ScoreName::Additive => attention.clone().additive(self.inner_scale),
            ScoreName::General => attention.clone().general(dim_q),
            ScoreName::Cosine => attention.clone().cosine(self.norm_eps, self.head_scale.is_some()),
        };
        for (wanted, name, given) in [
            (ScoreName::Additive, "score-v", self.score_v.is_some()),
            (ScoreName::General, "score-matrix", self.score_matrix.is_some()),
            (ScoreName::Cosine, "head-scale", self.head_scale.is_some()),
        ] {
            if given && self.score != wanted {
                let wanted = format!("--score {wanted:?}").to_lowercase();
                return Err(Error::invalid(format!("--{name}"), "another score", wanted));
            }
        }
        data.score_v = floats("score-v", &self.score_v, &[("dim", s.dim_qk)])?;
        data.score_matrix =
            floats("score-matrix", &self.score_matrix, &[("dim_q", dim_q), ("dim_k", s.dim_qk)])?;
        data.head_scale = floats("head-scale", &self.head_scale, &[("heads_q", s.heads_q)])?;
        attention.normalizer = self.normalizer(attention.shape.seq_kv);
        if let Some(dim) = self.rotary {
            self.rotate(source, attention, data, dim, past)?;
        }
        Ok(())
    }

    fn normalizer(&self, keys: u32) -> Normalizer {
        let keys = keys.max(1) as f32;
        let divisor = Scalar(self.divisor.unwrap_or(keys));
        match self.normalizer {
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
        let mut rows = past + s.seq_q.max(s.seq_kv.saturating_sub(past));
        if let Some(name) = &self.positions {
            let axes = [("batch", s.batch), ("seq_q", s.seq_q)];
            let ids = source.of_shape("positions", name, Elements::Counts, &axes)?;
            if let Some(far) = ids.iter().find(|x| **x >= 1e7) {
                return Err(Error::invalid("--positions", far, "positions below 10 million"));
            }
            data.positions = ids.into_iter().map(|x| x as u32).collect();
            rows = data.positions.iter().max().map_or(1, |last| last + 1);
        }
        let (cos, sin) = rotary_tables(dim, self.rotary_base, RotaryScaling::None, rows);
        data.rotary_cos = cos.into_iter().map(f64::from).collect();
        data.rotary_sin = sin.into_iter().map(f64::from).collect();
        let rotary = Rotary {
            interleaved: self.rotary_interleaved,
            ids: self.positions.is_some(),
            q_start: past,
            keys_from: past,
            k_start: past,
            ..Rotary::new(dim, rows)
        };
        *attention = attention.clone().rotary(rotary);
        Ok(())
    }
}
