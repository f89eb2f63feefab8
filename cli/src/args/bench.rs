//! Options of `heedful bench` and `heedful tune`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use heedful::bench::Buffers;
use heedful::{BackwardPlan, Path};

use super::PathName;

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Which workloads.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) suite: SuiteName,
    /// Workloads of your own, in TOML, instead of a suite.
    #[arg(long, value_name = "FILE", conflicts_with = "suite")]
    pub(crate) definitions: Option<PathBuf>,
    /// Only workloads whose name contains this.
    #[arg(long, value_name = "TEXT")]
    pub(crate) filter: Option<String>,
    /// Only this path. Without it every path is timed, but fused-tile where it is known to be slower: on software.
    #[arg(long, value_enum)]
    pub(crate) path: Option<PathName>,
    /// Only the adapter whose name, backend or driver contains this.
    #[arg(long, value_name = "TEXT")]
    pub(crate) adapter: Option<String>,
    /// Seconds spent measuring each row.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.4)]
    budget: f64,
    /// Skip workloads of more work than this; 200 on a software adapter unless it is given.
    #[arg(long, value_name = "GFLOP")]
    pub(crate) max_gflop: Option<f64>,
    /// Let every run read the same tensors, which caches may hold, rather than copies past the caches.
    #[arg(long)]
    same_buffers: bool,
    /// Also time the kernels for matrix units, where the adapter lists them (wgpu calls the feature experimental).
    #[arg(long)]
    pub(crate) matrix: bool,
    /// Also time the gradients of q, k and v of each workload.
    #[arg(long)]
    backward: bool,
    /// Tile shapes of `heedful tune`.
    #[arg(long, value_name = "FILE")]
    pub(crate) tuning: Option<PathBuf>,
    /// Results of other systems for the same calls, shown beside ours; runs read the same tensors, as theirs do.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(crate) peers: Vec<PathBuf>,
    /// Write rows and where they come from as JSON; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write the rows as CSV; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) csv: Option<PathBuf>,
    /// Write the table as Markdown; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) markdown: Option<PathBuf>,
    /// Draw the results, as SVG or PNG by the ending: NAME-roofline, NAME-lengths and NAME-paths. May be given
    /// several times.
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Vec<PathBuf>,
    /// Store CSV, provenance and pictures in a folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) record: Option<PathBuf>,
    /// Fail with status 3 rather than fall back to the reference.
    #[arg(long)]
    pub(crate) require_adapter: bool,
    /// Also time kernels compiled without run-time checks, as rows of their own.
    #[arg(long)]
    pub(crate) unchecked: bool,
}

impl Default for BenchArgs {
    /// What `heedful` without a command runs.
    fn default() -> Self {
        Self {
            suite: SuiteName::Quick,
            definitions: None,
            filter: None,
            path: None,
            adapter: None,
            budget: 0.4,
            max_gflop: None,
            same_buffers: false,
            matrix: false,
            backward: false,
            tuning: None,
            peers: Vec::new(),
            json: None,
            csv: None,
            markdown: None,
            plot: Vec::new(),
            record: None,
            require_adapter: false,
            unchecked: false,
        }
    }
}

impl BenchArgs {
    /// The suite's name in definitions and records.
    pub(crate) fn suite_name(&self) -> &'static str {
        if self.definitions.is_some() {
            return "own";
        }
        match self.suite {
            SuiteName::Quick => "quick",
            SuiteName::Standard => "standard",
            SuiteName::Long => "long",
            SuiteName::Decode => "decode",
            SuiteName::Forms => "forms",
            SuiteName::Matrix => "matrix",
            SuiteName::Backward => "backward",
            SuiteName::Full => "full",
        }
    }

    /// Whether the device is opened with its matrix units.
    pub(crate) fn uses_matrix(&self) -> bool {
        self.matrix || self.suite == SuiteName::Matrix || self.path.is_some_and(PathName::is_matrix)
    }

    /// Whether gradients are timed as well.
    pub(crate) fn times_gradients(&self) -> bool {
        !self.gradient_paths().is_empty()
    }

    /// The paths on which gradients are timed.
    pub(crate) fn gradient_paths(&self) -> Vec<Path> {
        let asked = self.backward || self.suite == SuiteName::Backward;
        let one = self.path.and_then(PathName::path);
        let wanted = |path: &Path| asked && one.is_none_or(|one| one == *path);
        BackwardPlan::PATHS.into_iter().filter(wanted).collect()
    }

    /// Time spent measuring each row.
    pub(crate) fn budget(&self) -> Duration {
        Duration::from_secs_f64(self.budget.clamp(0.0, 3600.0))
    }

    /// Whether runs read the same tensors.
    pub(crate) fn buffers(&self) -> Buffers {
        let same = self.same_buffers || !self.peers.is_empty();
        if same { Buffers::Same } else { Buffers::Rotated }
    }

    /// The options that change what is measured, for a record.
    pub(crate) fn named(&self) -> Vec<String> {
        let mut options = vec![format!("--suite {}", self.suite_name())];
        options.push(format!("--budget {}", self.budget));
        options.extend(self.filter.as_ref().map(|text| format!("--filter {text}")));
        let path = self.path.and_then(|path| path.to_possible_value());
        options.extend(path.map(|path| format!("--path {}", path.get_name())));
        options.extend(self.uses_matrix().then(|| "--matrix".into()));
        options.extend(self.times_gradients().then(|| "--backward".into()));
        options.extend(self.max_gflop.map(|n| format!("--max-gflop {n}")));
        options.extend((self.buffers() == Buffers::Same).then(|| "--same-buffers".into()));
        options.extend(self.tuning.is_some().then(|| "--tuning".into()));
        options.extend(self.unchecked.then(|| "--unchecked".into()));
        options
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum SuiteName {
    /// Small shapes: about 80 s on two cores with a software adapter.
    #[default]
    Quick,
    /// The quick ones, odd sizes and the shapes of common models.
    Standard,
    /// Lengths at which skipped work shows.
    Long,
    /// One query row or a few against a cache.
    Decode,
    /// Every other score, normaliser, position and place on one shape.
    Forms,
    /// f16 and bf16 on matrix units; implies --matrix.
    Matrix,
    /// Gradients beside the forward pass; implies --backward.
    Backward,
    /// All of them, and shapes that want a large GPU.
    Full,
}

impl SuiteName {
    /// Whether the recorded sentence model is timed as well.
    pub(crate) fn has_model(self) -> bool {
        matches!(self, Self::Quick | Self::Standard | Self::Full)
    }
}

#[derive(Debug, Args)]
pub(crate) struct TuneArgs {
    /// Only the adapter whose name, backend or driver contains this.
    #[arg(long, value_name = "TEXT")]
    pub(crate) adapter: Option<String>,
    /// Head dimensions to tune for, separated by blanks or commas.
    #[arg(long, value_name = "N", num_args = 1.., value_delimiter = ',', default_values_t = [32, 64, 128, 256])]
    pub(crate) dims: Vec<u32>,
    /// Also search shapes for matrix units, where the adapter lists them (wgpu calls the feature experimental).
    #[arg(long)]
    pub(crate) matrix: bool,
    /// Seconds spent measuring each tile shape.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.3)]
    pub(crate) budget: f64,
    /// Write the table; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}
