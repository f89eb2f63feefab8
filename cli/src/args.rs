//! Arguments, as the user types them.

mod bench;
mod report;

pub(crate) use bench::{BenchArgs, TuneArgs};
pub(crate) use report::ReportArgs;

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use heedful::feature::Operands;
use heedful::{Align, DType, Error, Operand, Path, WeightsAt};

use crate::forms::FormArgs;
use crate::gradients::GradientArgs;
use crate::map::MapArgs;

/// Attention for every GPU: measure it, check it, run it.
#[derive(Debug, Parser)]
#[command(version, about)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Time attention on an adapter, each result checked (the default).
    Bench(BenchArgs),
    /// List adapters, what they can do and which kernels they can run.
    Info(InfoArgs),
    /// Draw attention weights as a picture.
    Map(MapArgs),
    /// Merge reports of `verify` from several machines into one table of features.
    Report(ReportArgs),
    /// Run one attention call on arrays from files.
    Run(Box<RunArgs>),
    /// Search for faster tile shapes on an adapter and write them as a table.
    Tune(TuneArgs),
    /// Check kernels against the reference and against recorded results.
    Verify(VerifyArgs),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct InfoArgs {
    /// Only adapters whose name, backend or driver contains this.
    #[arg(long, value_name = "TEXT")]
    pub(crate) adapter: Option<String>,
    /// Write as JSON; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Open adapters with their matrix units (wgpu calls the feature experimental).
    #[arg(long)]
    pub(crate) matrix: bool,
    /// Measure what the adapter reaches: multiply-adds, memory, dispatches.
    #[arg(long)]
    pub(crate) measure: bool,
}

/// A part of the cases, by their order: the `index`-th (from 0) of every `of`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shard {
    index: usize,
    of: usize,
}

impl Shard {
    /// Whether the i-th case is in it.
    pub(crate) fn holds(self, i: usize) -> bool {
        i % self.of == self.index
    }
}

fn parse_shard(text: &str) -> Result<Shard, String> {
    let (index, of) = text.split_once('/').ok_or("two numbers, as in 2/8")?;
    let number = |text: &str| text.parse::<usize>().map_err(|e| format!("{text}: {e}"));
    match (number(index)?, number(of)?) {
        (index, of) if (1..=of).contains(&index) => Ok(Shard { index: index - 1, of }),
        (index, of) => Err(format!("no {index} among 1 to {of}")),
    }
}

#[derive(Debug, ClapArgs)]
pub(crate) struct VerifyArgs {
    /// Only the adapter whose name, backend or driver contains this.
    #[arg(long, value_name = "TEXT")]
    pub(crate) adapter: Option<String>,
    /// Every adapter, not only the best.
    #[arg(long, conflicts_with = "adapter")]
    pub(crate) all_adapters: bool,
    /// A folder of recorded cases; may be given several times.
    #[arg(long, value_name = "DIR")]
    pub(crate) cases: Vec<PathBuf>,
    /// A grid of generated cases (the default is `quick` when no --cases is given).
    #[arg(long, value_enum)]
    pub(crate) grid: Option<GridName>,
    /// Only cases whose name contains this.
    #[arg(long, value_name = "TEXT")]
    pub(crate) filter: Option<String>,
    /// Only the I-th of every N cases: a run is shared out over N processes or machines, whose reports `heedful report`
    /// joins.
    #[arg(long, value_name = "I/N", value_parser = parse_shard, default_value = "1/1", hide_default_value = true)]
    pub(crate) shard: Shard,
    /// Only this path of those that a case runs on; may be given several times.
    #[arg(long, value_enum)]
    pub(crate) path: Vec<PathName>,
    /// Another seed for generated data.
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Write the report: .xml as JUnit's XML, .md as Markdown, .html as a page, any other as JSON; `-` is
    /// JSON on standard output. May be given several times.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Vec<PathBuf>,
    /// Known driver bugs of your own, as JSON: what fails as expected is no failure, what passes is one. May be
    /// given several times.
    #[arg(long, value_name = "FILE")]
    pub(crate) expect: Vec<PathBuf>,
    /// Also try the kernels for matrix units, where the adapter lists them (wgpu calls the feature experimental).
    #[arg(long)]
    pub(crate) matrix: bool,
    /// Go on with the run of the first --report FILE.json, whatever ended it: FILE.json.journal holds every case
    /// that ended. The case that was running is tried again in a process of its own.
    #[arg(long, requires = "report")]
    pub(crate) resume: bool,
    /// Run one case and print its rows: what --resume runs in a process of its own.
    #[arg(long, value_name = "CASE", hide = true)]
    pub(crate) alone: Option<String>,
}

impl VerifyArgs {
    /// Whether devices are opened with their matrix units.
    pub(crate) fn uses_matrix(&self) -> bool {
        self.matrix
            || self.grid == Some(GridName::Matrix)
            || self.path.iter().any(|x| x.is_matrix())
    }

    /// Whether cases are run on a path.
    pub(crate) fn asks_for(&self, path: Path) -> bool {
        self.path.is_empty() || self.path.iter().any(|name| name.path() == Some(path))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GridName {
    Quick,
    Full,
    /// Cases for matrix units; implies --matrix.
    Matrix,
}

/// Arrays are `[batch, heads, seq, dim]`; with three axes `[heads, seq, dim]`, with two `[seq, dim]`.
#[derive(Debug, ClapArgs)]
pub(crate) struct RunArgs {
    /// Queries: a .npy file, or the array's name with --npz or --safetensors.
    #[arg(long, value_name = "Q", default_value = "q")]
    pub(crate) q: String,
    /// Keys.
    #[arg(long, value_name = "K", default_value = "k")]
    pub(crate) k: String,
    /// Values.
    #[arg(long, value_name = "V", default_value = "v")]
    pub(crate) v: String,
    /// Where to write the output, f32.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Take arrays by name from this .npz file.
    #[arg(long, value_name = "FILE", conflicts_with = "safetensors")]
    pub(crate) npz: Option<PathBuf>,
    /// Take arrays by name from this .safetensors file.
    #[arg(long, value_name = "FILE")]
    pub(crate) safetensors: Option<PathBuf>,
    /// An attention call as JSON, in a file or, beginning with `{`, here: the fields of the library's `Attention` that
    /// differ from a plain call, as in {"masks": {"chunked": {"size": 64, "align": "top_left"}}}. Its shape is the
    /// arrays' unless it is given. What other options say replaces or extends it. Everything can be said but functions
    /// of your own.
    #[arg(long, value_name = "FILE|JSON")]
    pub(crate) call: Option<String>,
    /// A tensor of the call by its name in the library, such as segments_q=ids.npy, in any axes; may be given several
    /// times. Options below are short forms that also ask for what the tensor is for.
    #[arg(long, value_name = "NAME=ARRAY", value_parser = parse_operand)]
    pub(crate) operand: Vec<(Operand, String)>,
    /// Boolean mask, true = attend, broadcast to `batch, heads, seq_q, seq_kv`.
    #[arg(long, value_name = "ARRAY")]
    pub(crate) mask: Option<String>,
    /// Keep the mask as bits rather than bytes.
    #[arg(long, requires = "mask")]
    pub(crate) mask_bits: bool,
    /// Parents of a tree of rows, as drafted tokens are verified: integers [batch, seq_q] or, for all sequences,
    /// [1, seq_q], each less than its row, -1 for none. The last keys are the rows' own, unless a mask says otherwise.
    #[arg(long, value_name = "ARRAY")]
    pub(crate) tree: Option<String>,
    /// Additive bias, floats, broadcast to `batch, heads, seq_q, seq_kv`; -inf masks.
    #[arg(long, value_name = "ARRAY")]
    pub(crate) bias: Option<String>,
    /// Store the bias as f32, f16 or bf16.
    #[arg(long, value_name = "TYPE", value_parser = parse_dtype, requires = "bias")]
    pub(crate) bias_dtype: Option<DType>,
    /// Leave out this share of the weights at random, at least 0 and below 1.
    #[arg(long, value_name = "RATE")]
    pub(crate) dropout: Option<f32>,
    /// Which weights are left out: equal seeds leave out equal ones.
    #[arg(long, value_name = "N", default_value_t = 0, requires = "dropout")]
    pub(crate) dropout_seed: u64,
    /// Sinks, floats [query heads].
    #[arg(long, value_name = "ARRAY")]
    pub(crate) sinks: Option<String>,
    /// ALiBi slopes, floats [query heads].
    #[arg(long, value_name = "ARRAY")]
    pub(crate) alibi: Option<String>,
    /// Which key ALiBi counts distance from: row + this; top-left unless it is given.
    #[arg(long, value_name = "ALIGN", value_parser = parse_align, allow_hyphen_values = true)]
    pub(crate) alibi_offset: Option<Align>,
    /// Key lengths, integers [batch].
    #[arg(long, value_name = "ARRAY")]
    pub(crate) kv_lengths: Option<String>,
    /// Query lengths, integers [batch].
    #[arg(long, value_name = "ARRAY")]
    pub(crate) q_lengths: Option<String>,
    /// First query row of each packed sequence and their total, as many as sequences plus one; q and k
    /// are then [total, heads, dim].
    #[arg(long, value_name = "ARRAY", requires = "cu_seqlens_k")]
    pub(crate) cu_seqlens_q: Option<String>,
    /// First key of each packed sequence and their total.
    #[arg(long, value_name = "ARRAY", requires = "cu_seqlens_q", conflicts_with = "past_k")]
    pub(crate) cu_seqlens_k: Option<String>,
    /// Past keys, put before k; needs --past-v.
    #[arg(long, value_name = "ARRAY", requires = "past_v")]
    pub(crate) past_k: Option<String>,
    /// Past values, put before v; needs --past-k.
    #[arg(long, value_name = "ARRAY", requires = "past_k")]
    pub(crate) past_v: Option<String>,
    /// Hide keys after the diagonal: top-left, bottom-right or an offset.
    #[arg(long, value_name = "ALIGN", value_parser = parse_align, allow_hyphen_values = true)]
    pub(crate) causal: Option<Align>,
    /// Hide keys further than LEFT before or RIGHT after the diagonal; `-` is unbounded.
    #[arg(long, value_name = "LEFT,RIGHT", value_parser = parse_window, allow_hyphen_values = true)]
    pub(crate) window: Option<(Option<u32>, Option<u32>)>,
    /// The window's diagonal where there is no --causal: top-left, bottom-right or an offset.
    #[arg(long, value_name = "ALIGN", value_parser = parse_align, allow_hyphen_values = true)]
    pub(crate) window_align: Option<Align>,
    /// Cap scores to (-C, C).
    #[arg(long, value_name = "C", allow_hyphen_values = true)]
    pub(crate) softcap: Option<f32>,
    /// Factor on q·k instead of 1/sqrt(dim).
    #[arg(long, value_name = "S", allow_hyphen_values = true)]
    pub(crate) scale: Option<f32>,
    #[command(flatten)]
    pub(crate) form: FormArgs,
    /// Which path.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) path: PathName,
    /// Use matrix units where the adapter lists them (wgpu calls the feature experimental).
    #[arg(long)]
    pub(crate) matrix: bool,
    /// Storage type on the GPU: f32, f16 or bf16; f32 unless it is given.
    #[arg(long, value_name = "TYPE", value_parser = parse_dtype)]
    pub(crate) dtype: Option<DType>,
    /// Write the log-sum-exp of every row.
    #[arg(long, value_name = "FILE")]
    pub(crate) lse: Option<PathBuf>,
    /// Write scores or weights of every row and key.
    #[arg(long, value_name = "FILE")]
    pub(crate) weights: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) gradients: GradientArgs,
    /// Which scores --weights are; probabilities unless it is given.
    #[arg(long, value_enum)]
    pub(crate) weights_at: Option<WeightsName>,
    /// Print the plan.
    #[arg(long)]
    pub(crate) explain: bool,
    /// Compare with the float64 reference; status 1 when they differ.
    #[arg(long)]
    pub(crate) check: bool,
    /// Only the adapter whose name, backend or driver contains this.
    #[arg(long, value_name = "TEXT")]
    pub(crate) adapter: Option<String>,
    /// Fail with status 3 rather than fall back to the reference.
    #[arg(long)]
    pub(crate) require_adapter: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum PathName {
    #[default]
    Auto,
    Fused,
    FusedTile,
    Split,
    Staged,
    /// On matrix units; implies --matrix.
    FusedMatrix,
    /// On matrix units; implies --matrix.
    StagedMatrix,
    Reference,
}

impl PathName {
    /// Whether the path is for matrix units.
    pub(crate) fn is_matrix(self) -> bool {
        self.path().is_some_and(Path::is_matrix)
    }

    /// The library's path; `None` is the reference on the CPU.
    pub(crate) fn path(self) -> Option<Path> {
        match self {
            Self::Auto => Some(Path::Auto),
            Self::Fused => Some(Path::Fused),
            Self::FusedTile => Some(Path::FusedTile),
            Self::Split => Some(Path::Split),
            Self::Staged => Some(Path::Staged),
            Self::FusedMatrix => Some(Path::FusedMatrix),
            Self::StagedMatrix => Some(Path::StagedMatrix),
            Self::Reference => None,
        }
    }
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
