//! Arguments of `run`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use heedful::Operands;
use heedful::{Align, DType, Error, Operand, WeightsAt};

use super::PathName;
use crate::forms::FormArgs;
use crate::gradients::GradientArgs;

/// Arrays are `[batch, heads, seq, dim]`; with three axes `[heads, seq, dim]`, with two `[seq, dim]`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Queries: a .npy file, or the array's name with --npz or --safetensors.
    #[arg(long, value_name = "Q", default_value = "q")]
    #[arg(help_heading = "Tensors")]
    pub(crate) q: String,
    /// Keys.
    #[arg(long, value_name = "K", default_value = "k")]
    #[arg(help_heading = "Tensors")]
    pub(crate) k: String,
    /// Values.
    #[arg(long, value_name = "V", default_value = "v")]
    #[arg(help_heading = "Tensors")]
    pub(crate) v: String,
    /// Where to write the output, f32.
    #[arg(long, value_name = "FILE")]
    #[arg(help_heading = "Results")]
    pub(crate) out: Option<PathBuf>,
    /// Take arrays by name from this .npz file.
    #[arg(long, value_name = "FILE", conflicts_with = "safetensors")]
    #[arg(help_heading = "Tensors")]
    pub(crate) npz: Option<PathBuf>,
    /// Take arrays by name from this .safetensors file.
    #[arg(long, value_name = "FILE")]
    #[arg(help_heading = "Tensors")]
    pub(crate) safetensors: Option<PathBuf>,
    /// An attention call as JSON, in a file or, beginning with `{`, here: the fields of the library's `Attention` that
    /// differ from a plain call, as in {"masks": {"chunked": {"size": 64, "align": "top_left"}}}. Its shape is the
    /// arrays' unless it is given. What other options say replaces or extends it. Everything can be said but functions
    /// of your own.
    #[arg(long, value_name = "FILE|JSON")]
    #[arg(help_heading = "Tensors")]
    pub(crate) call: Option<String>,
    /// A tensor of the call by its name in the library, such as segments_q=ids.npy, in any axes; may be given several
    /// times. Options below are short forms that also ask for what the tensor is for.
    #[arg(long, value_name = "NAME=ARRAY", value_parser = parse_operand)]
    #[arg(help_heading = "Tensors")]
    pub(crate) operand: Vec<(Operand, String)>,
    /// Boolean mask, true = attend, broadcast to `batch, heads, seq_q, seq_kv`.
    #[arg(long, value_name = "ARRAY")]
    #[arg(help_heading = "Masks and lengths")]
    pub(crate) mask: Option<String>,
    /// Keep the mask as bits rather than bytes.
    #[arg(long, requires = "mask")]
    #[arg(help_heading = "Masks and lengths")]
    pub(crate) mask_bits: bool,
    /// Parents of a tree of rows, as drafted tokens are verified: integers [batch, seq_q] or, for all sequences,
    /// [1, seq_q], each less than its row, -1 for none. The last keys are the rows' own, unless a mask says otherwise.
    #[arg(long, value_name = "ARRAY")]
    #[arg(help_heading = "Masks and lengths")]
    pub(crate) tree: Option<String>,
    /// Additive bias, floats, broadcast to `batch, heads, seq_q, seq_kv`; -inf masks.
    #[arg(long, value_name = "ARRAY")]
    #[arg(help_heading = "Scores, weights and positions")]
    pub(crate) bias: Option<String>,
    /// Store the bias as f32, f16 or bf16.
    #[arg(long, value_name = "TYPE", value_parser = parse_dtype, requires = "bias")]
    #[arg(help_heading = "Scores, weights and positions")]
    pub(crate) bias_dtype: Option<DType>,
    /// Leave out this share of the weights at random, at least 0 and below 1.
    #[arg(long, value_name = "RATE")]
    #[arg(help_heading = "Scores, weights and positions")]
    pub(crate) dropout: Option<f32>,
    /// Which weights are left out: equal seeds leave out equal ones.
    #[arg(long, value_name = "N", default_value_t = 0, requires = "dropout")]
    #[arg(help_heading = "Scores, weights and positions")]
    pub(crate) dropout_seed: u64,
    /// Sinks, floats [query heads].
    #[arg(long, value_name = "ARRAY")]
    #[arg(help_heading = "Scores, weights and positions")]
    pub(crate) sinks: Option<String>,
    /// ALiBi slopes, floats [query heads].
    #[arg(long, value_name = "ARRAY")]
    #[arg(help_heading = "Scores, weights and positions")]
    pub(crate) alibi: Option<String>,
    /// Which key ALiBi counts distance from: row + this; top-left unless it is given.
    #[arg(long, value_name = "ALIGN", value_parser = parse_align, allow_hyphen_values = true)]
    #[arg(help_heading = "Scores, weights and positions")]
    pub(crate) alibi_offset: Option<Align>,
    /// Key lengths, integers [batch].
    #[arg(long, value_name = "ARRAY")]
    #[arg(help_heading = "Masks and lengths")]
    pub(crate) kv_lengths: Option<String>,
    /// Query lengths, integers [batch].
    #[arg(long, value_name = "ARRAY")]
    #[arg(help_heading = "Masks and lengths")]
    pub(crate) q_lengths: Option<String>,
    /// First query row of each packed sequence and their total, as many as sequences plus one; q and k
    /// are then [total, heads, dim].
    #[arg(long, value_name = "ARRAY", requires = "cu_seqlens_k")]
    #[arg(help_heading = "Masks and lengths")]
    pub(crate) cu_seqlens_q: Option<String>,
    /// First key of each packed sequence and their total.
    #[arg(long, value_name = "ARRAY", requires = "cu_seqlens_q", conflicts_with = "past_k")]
    #[arg(help_heading = "Masks and lengths")]
    pub(crate) cu_seqlens_k: Option<String>,
    /// Past keys, put before k; needs --past-v.
    #[arg(long, value_name = "ARRAY", requires = "past_v")]
    #[arg(help_heading = "Tensors")]
    pub(crate) past_k: Option<String>,
    /// Past values, put before v; needs --past-k.
    #[arg(long, value_name = "ARRAY", requires = "past_k")]
    #[arg(help_heading = "Tensors")]
    pub(crate) past_v: Option<String>,
    /// Hide keys after the diagonal: top-left, bottom-right or an offset.
    #[arg(long, value_name = "ALIGN", value_parser = parse_align, allow_hyphen_values = true)]
    #[arg(help_heading = "Masks and lengths")]
    pub(crate) causal: Option<Align>,
    /// Hide keys further than LEFT before or RIGHT after the diagonal; `-` is unbounded.
    #[arg(long, value_name = "LEFT,RIGHT", value_parser = parse_window, allow_hyphen_values = true)]
    #[arg(help_heading = "Masks and lengths")]
    pub(crate) window: Option<(Option<u32>, Option<u32>)>,
    /// The window's diagonal where there is no --causal: top-left, bottom-right or an offset.
    #[arg(long, value_name = "ALIGN", value_parser = parse_align, allow_hyphen_values = true)]
    #[arg(help_heading = "Masks and lengths")]
    pub(crate) window_align: Option<Align>,
    /// Cap scores to (-C, C).
    #[arg(long, value_name = "C", allow_hyphen_values = true)]
    #[arg(help_heading = "Scores, weights and positions")]
    pub(crate) softcap: Option<f32>,
    /// Factor on q·k instead of 1/sqrt(dim).
    #[arg(long, value_name = "S", allow_hyphen_values = true)]
    #[arg(help_heading = "Scores, weights and positions")]
    pub(crate) scale: Option<f32>,
    #[command(flatten)]
    pub(crate) form: FormArgs,
    /// Which path.
    #[arg(long, value_enum, default_value_t)]
    #[arg(help_heading = "How and where")]
    pub(crate) path: PathName,
    /// Use matrix units where the adapter lists them (wgpu calls the feature experimental).
    #[arg(long)]
    #[arg(help_heading = "How and where")]
    pub(crate) matrix: bool,
    /// Storage type on the GPU: f32, f16 or bf16; f32 unless it is given.
    #[arg(long, value_name = "TYPE", value_parser = parse_dtype)]
    #[arg(help_heading = "How and where")]
    pub(crate) dtype: Option<DType>,
    /// Write the log-sum-exp of every row.
    #[arg(long, value_name = "FILE")]
    #[arg(help_heading = "Results")]
    pub(crate) lse: Option<PathBuf>,
    /// Write scores or weights of every row and key.
    #[arg(long, value_name = "FILE")]
    #[arg(help_heading = "Results")]
    pub(crate) weights: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) gradients: GradientArgs,
    /// Which scores --weights are; probabilities unless it is given.
    #[arg(long, value_enum)]
    #[arg(help_heading = "Results")]
    pub(crate) weights_at: Option<WeightsName>,
    /// Print the plan.
    #[arg(long)]
    #[arg(help_heading = "Results")]
    pub(crate) explain: bool,
    /// Compare with the float64 reference; status 1 when they differ.
    #[arg(long)]
    #[arg(help_heading = "Results")]
    pub(crate) check: bool,
    /// Only the adapter whose name, backend or driver contains this.
    #[arg(long, value_name = "TEXT")]
    #[arg(help_heading = "How and where")]
    pub(crate) adapter: Option<String>,
    /// Fail with status 3 rather than fall back to the reference.
    #[arg(long)]
    #[arg(help_heading = "How and where")]
    pub(crate) require_adapter: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WeightsName {
    RawScores,
    AfterSoftcap,
    AfterBias,
    Probabilities,
}

impl From<WeightsName> for WeightsAt {
    fn from(name: WeightsName) -> Self {
        match name {
            WeightsName::RawScores => Self::RawScores,
            WeightsName::AfterSoftcap => Self::AfterSoftcap,
            WeightsName::AfterBias => Self::AfterBias,
            WeightsName::Probabilities => Self::Probabilities,
        }
    }
}

/// A tensor that a call may have beside q, k and v, and its array.
fn parse_operand(text: &str) -> Result<(Operand, String), String> {
    let (name, array) = text.split_once('=').ok_or("want NAME=ARRAY")?;
    let none = Operands::default();
    let tensors = || Operand::ALL.iter().filter(|x| none.elements(**x).is_some());
    tensors().find(|x| x.name() == name).map(|x| (*x, array.to_owned())).ok_or_else(|| {
        let names: Vec<&str> = tensors().map(|x| x.name()).collect();
        format!("{name:?} is none of {}", names.join(", "))
    })
}

fn parse_align(text: &str) -> Result<Align, String> {
    match text {
        "top-left" => Ok(Align::TopLeft),
        "bottom-right" => Ok(Align::BottomRight),
        _ => text
            .parse()
            .map(Align::Offset)
            .map_err(|_| "want top-left, bottom-right or an integer".to_owned()),
    }
}

fn parse_window(text: &str) -> Result<(Option<u32>, Option<u32>), String> {
    let wanted = || "want LEFT,RIGHT, each a number or `-` for unbounded".to_owned();
    let (left, right) = text.split_once(',').ok_or_else(wanted)?;
    let side = |text: &str| match text.trim() {
        "-" => Ok(None),
        number => number.parse().map(Some).map_err(|_| wanted()),
    };
    Ok((side(left)?, side(right)?))
}

fn parse_dtype(text: &str) -> Result<DType, Error> {
    text.parse()
}
