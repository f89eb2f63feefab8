//! Arguments, as the user types them.

mod bench;
mod report;
mod run;
mod shader;

pub(crate) use bench::{BenchArgs, TuneArgs};
pub(crate) use report::ReportArgs;
pub(crate) use run::RunArgs;
pub(crate) use shader::{CompletionsArgs, ShaderArgs};

use std::ffi::OsString;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::LazyLock;

use clap::builder::PossibleValue;
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use heedful::Path;

use crate::map::MapArgs;

/// Attention for every GPU: measure it, check it, run it.
#[derive(Debug, Parser)]
#[command(name = "heedful", version, about)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Time attention on an adapter, each result checked (the default).
    Bench(BenchArgs),
    /// Print completions for a shell.
    Completions(CompletionsArgs),
    /// List adapters, what they can do and which kernels they can run.
    Info(InfoArgs),
    /// Draw attention weights as a picture.
    Map(MapArgs),
    /// Merge reports of `verify` from several machines into one table of features.
    Report(ReportArgs),
    /// Run one attention call on arrays from files.
    Run(Box<RunArgs>),
    /// Print the kernels of a call for a described device, which need not be there.
    Shader(ShaderArgs),
    /// Search for faster tile shapes on an adapter and write them as a table.
    Tune(TuneArgs),
    /// Check kernels against the reference and against recorded results.
    Verify(VerifyArgs),
    /// A file, and options of the command that it is obviously for.
    #[command(external_subcommand)]
    File(Vec<OsString>),
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

/// A part of the cases: of `of` stretches of their order the `index`-th (from 0), since neighbours share kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shard {
    index: usize,
    of: usize,
}

impl Shard {
    /// Those of so many cases that are in it.
    pub(crate) fn range(self, cases: usize) -> Range<usize> {
        let start = |i: usize| (cases as u128 * i as u128 / self.of as u128) as usize;
        start(self.index)..start(self.index + 1)
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
    /// Only the I-th of N parts of the cases: a run is shared out over N processes or machines, whose reports `heedful
    /// report` joins. A part is one stretch of their order, since neighbours share kernels.
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
    /// A few cases in which every slot file occurs.
    Slots,
    Quick,
    Full,
    /// Cases for matrix units; implies --matrix.
    Matrix,
}

/// A path of the library, or the reference on the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PathName {
    Gpu(Path),
    Reference,
}

impl Default for PathName {
    fn default() -> Self {
        Self::Gpu(Path::Auto)
    }
}

impl ValueEnum for PathName {
    fn value_variants<'a>() -> &'a [Self] {
        static ALL: LazyLock<Vec<PathName>> = LazyLock::new(|| {
            let paths = [Path::Auto].into_iter().chain(Path::ALL.iter().copied());
            paths.map(PathName::Gpu).chain([PathName::Reference]).collect()
        });
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Gpu(path) if path.is_matrix() => {
                PossibleValue::new(path.name()).help("On matrix units; implies --matrix")
            }
            Self::Gpu(path) => PossibleValue::new(path.name()),
            Self::Reference => PossibleValue::new("reference"),
        })
    }
}

impl PathName {
    /// Whether the path is for matrix units.
    pub(crate) fn is_matrix(self) -> bool {
        self.path().is_some_and(Path::is_matrix)
    }

    /// The library's path; `None` is the reference on the CPU.
    pub(crate) fn path(self) -> Option<Path> {
        match self {
            Self::Gpu(path) => Some(path),
            Self::Reference => None,
        }
    }
}
