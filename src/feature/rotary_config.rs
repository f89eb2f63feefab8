//! Rotation as a model's own configuration file says it.

use crate::error::{Error, Result};
use crate::feature::rotary::{LongRope, RotaryScaling, Yarn};

/// What a model's configuration says of its rotary positions; its `config.json` is one (`serde`).
///
/// ```
/// # #[cfg(feature = "verify")]
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use heedful::{RotaryConfig, RotaryScaling};
/// let config = r#"{
///     "rope_theta": 500000.0, "hidden_size": 4096, "num_attention_heads": 32,
///     "rope_scaling": { "rope_type": "linear", "factor": 4.0 }
/// }"#;
/// let rotary: RotaryConfig = serde_json::from_str(config)?;
/// assert_eq!((rotary.dim, rotary.base, &rotary.scaling), (128, 5e5, &RotaryScaling::Linear(4.0)));
/// let (cos, _sin) = rotary.tables(2048)?;
/// assert_eq!(cos.len(), 2048 * 64);
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "verify"))]
/// # fn main() {}
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "ModelConfig"))]
pub struct RotaryConfig {
    /// Channels that are rotated, the first of each head.
    pub dim: u32,
    /// Base of the frequencies.
    pub base: f64,
    /// How they are stretched.
    pub scaling: RotaryScaling,
}

impl RotaryConfig {
    /// The tables of a sequence of `rows` positions, as [`RotaryScaling::tables`]. Dynamic NTK and LongRoPE look at
    /// that length.
    ///
    /// # Errors
    /// As [`RotaryScaling::frequencies`].
    pub fn tables(&self, rows: u32) -> Result<(Vec<f32>, Vec<f32>)> {
        self.scaling.tables(self.dim, self.base, rows)
    }
}

/// The fields of a model's configuration that say how it rotates, under the names that `transformers` gives them;
/// others are passed over.
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
pub struct ModelConfig {
    /// Base of the frequencies; 10000 where neither it nor the scaling's is given.
    #[cfg_attr(feature = "serde", serde(alias = "rotary_emb_base"))]
    pub rope_theta: Option<f64>,
    /// Channels of a head; hidden_size / num_attention_heads unless it is given.
    pub head_dim: Option<u32>,
    /// Channels of a head that are rotated and lie apart, in multi-head latent attention.
    pub qk_rope_head_dim: Option<u32>,
    /// Channels of all heads.
    pub hidden_size: Option<u32>,
    /// Query heads.
    pub num_attention_heads: Option<u32>,
    /// Share of a head's channels that are rotated; all unless it or the scaling's is given.
    #[cfg_attr(feature = "serde", serde(alias = "rotary_pct"))]
    pub partial_rotary_factor: Option<f64>,
    /// Longest sequence.
    pub max_position_embeddings: Option<f64>,
    /// Longest sequence in training; it goes before the scaling's.
    pub original_max_position_embeddings: Option<f64>,
    /// How frequencies are stretched; not at all where there is none.
    #[cfg_attr(feature = "serde", serde(alias = "rope_parameters"))]
    pub rope_scaling: Option<RopeScaling>,
}

/// The object `rope_scaling` or `rope_parameters` of a model's configuration. A field that is not here is refused,
/// since nothing would come of it.
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct RopeScaling {
    /// `default`, `linear`, `ntk`, `dynamic`, `yarn`, `llama3`, `longrope` or `proportional`.
    pub rope_type: Option<String>,
    /// The same in older files.
    #[cfg_attr(feature = "serde", serde(rename = "type"))]
    pub older_type: Option<String>,
    /// See [`ModelConfig::rope_theta`].
    pub rope_theta: Option<f64>,
    /// See [`ModelConfig::partial_rotary_factor`].
    pub partial_rotary_factor: Option<f64>,
    /// The factor; of yarn and longrope the ratio of the two lengths unless it is given.
    pub factor: Option<f64>,
    /// Longest sequence in training; max_position_embeddings unless it is given.
    pub original_max_position_embeddings: Option<f64>,
    /// Of yarn and longrope.
    pub attention_factor: Option<f64>,
    /// Of yarn; 32 unless it is given.
    pub beta_fast: Option<f64>,
    /// Of yarn; 1 unless it is given.
    pub beta_slow: Option<f64>,
    /// Of yarn.
    pub mscale: Option<f64>,
    /// Of yarn.
    pub mscale_all_dim: Option<f64>,
    /// Of yarn; true unless it is given.
    pub truncate: Option<bool>,
    /// Of llama3.
    pub low_freq_factor: Option<f64>,
    /// Of llama3.
    pub high_freq_factor: Option<f64>,
    /// Of longrope.
    pub short_factor: Option<Vec<f64>>,
    /// Of longrope.
    pub long_factor: Option<Vec<f64>>,
}

impl TryFrom<ModelConfig> for RotaryConfig {
    type Error = Error;

    fn try_from(model: ModelConfig) -> Result<Self> {
        let scaling = model.rope_scaling.clone().unwrap_or_default();
        let share = scaling.partial_rotary_factor.or(model.partial_rotary_factor).unwrap_or(1.0);
        let head = model.head_channels()?;
        let scaled = model.scaling(&scaling, share)?;
        let whole = matches!(scaled, RotaryScaling::Proportional { .. });
        let dim = if whole { head } else { (f64::from(head) * share) as u32 };
        let base = scaling.rope_theta.or(model.rope_theta).unwrap_or(10_000.0);
        let config = Self { dim, base, scaling: scaled };
        // What tables would refuse is refused now.
        config.scaling.frequencies(config.dim, config.base, 1)?;
        Ok(config)
    }
}

impl ModelConfig {
    fn head_channels(&self) -> Result<u32> {
        let of_all = || Some(self.hidden_size? / self.num_attention_heads.filter(|n| *n > 0)?);
        self.qk_rope_head_dim.or(self.head_dim).or_else(of_all).ok_or_else(|| {
            let wanted = "head_dim, or hidden_size and num_attention_heads (of a model of several parts, the \
                configuration of the one that has them)";
            Error::invalid("model configuration head_dim", "none", wanted)
        })
    }

    fn scaling(&self, given: &RopeScaling, share: f64) -> Result<RotaryScaling> {
        let kind = given.rope_type.as_deref().or(given.older_type.as_deref()).unwrap_or("default");
        let missing = |name: &str| {
            Error::invalid(format!("rope_scaling {name}"), "none", format!("a value, for {kind}"))
        };
        let factor = || given.factor.ok_or_else(|| missing("factor"));
        let longest = || {
            let name = "max_position_embeddings";
            let missing = || Error::invalid(name, "none", format!("a length, for {kind}"));
            self.max_position_embeddings.ok_or_else(missing)
        };
        let trained = || {
            let original = self.original_max_position_embeddings;
            original.or(given.original_max_position_embeddings).map_or_else(longest, Ok)
        };
        let ratio = || given.factor.map_or_else(|| Ok(longest()? / trained()?), Ok);
        let of = |name: &str, x: Option<f64>| x.ok_or_else(|| missing(name));
        let list = |name: &str, x: &Option<Vec<f64>>| x.clone().ok_or_else(|| missing(name));
        Ok(match kind {
            "default" => RotaryScaling::None,
            "linear" => RotaryScaling::Linear(factor()?),
            "ntk" => RotaryScaling::Ntk(factor()?),
            "dynamic" => RotaryScaling::DynamicNtk { factor: factor()?, trained: longest()? },
            "yarn" => RotaryScaling::Yarn(given.yarn(ratio()?, trained()?)),
            "llama3" => RotaryScaling::Llama3 {
                factor: factor()?,
                low_freq: of("low_freq_factor", given.low_freq_factor)?,
                high_freq: of("high_freq_factor", given.high_freq_factor)?,
                trained: trained()?,
            },
            // Phi-3 called it `su` at first.
            "longrope" | "su" => RotaryScaling::LongRope(LongRope {
                short: list("short_factor", &given.short_factor)?,
                long: list("long_factor", &given.long_factor)?,
                trained: trained()?,
                factor: ratio()?,
                attention_factor: given.attention_factor,
            }),
            "proportional" => {
                RotaryScaling::Proportional { factor: given.factor.unwrap_or(1.0), share }
            }
            other => {
                let wanted =
                    "default, linear, ntk, dynamic, yarn, llama3, longrope or proportional";
                return Err(Error::invalid("rope_scaling rope_type", format!("{other:?}"), wanted));
            }
        })
    }
}

impl RopeScaling {
    fn yarn(&self, factor: f64, trained: f64) -> Yarn {
        // 0 stands for none in models' files.
        let or = |x: Option<f64>, usual: f64| x.filter(|x| *x != 0.0).unwrap_or(usual);
        Yarn {
            beta_fast: or(self.beta_fast, 32.0),
            beta_slow: or(self.beta_slow, 1.0),
            mscale: self.mscale,
            mscale_all_dim: self.mscale_all_dim,
            attention_factor: self.attention_factor,
            truncate: self.truncate.unwrap_or(true),
            ..Yarn::new(factor, trained)
        }
    }
}
