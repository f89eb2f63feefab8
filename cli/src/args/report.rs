//! Arguments of `report`.

use std::path::PathBuf;

use clap::Args;

/// Without an output the table is printed as Markdown. `-` is standard output.
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Reports that `heedful verify --report` wrote as JSON.
    #[arg(required_unless_present = "bench", value_name = "REPORT")]
    pub(crate) reports: Vec<PathBuf>,
    /// Folders that `heedful bench --record` wrote: two are compared row by row; with --readme any number
    /// becomes tables between the lines `<!-- bench-SUITE:begin -->` and `<!-- bench-SUITE:end -->` that the file has.
    #[arg(long, value_name = "DIR", num_args = 1.., conflicts_with_all = ["reports", "html", "junit", "json"])]
    pub(crate) bench: Vec<PathBuf>,
    /// Write one page with totals, features, every failure and all rows.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Write totals, features and failures as Markdown.
    #[arg(long, value_name = "FILE")]
    pub(crate) markdown: Option<PathBuf>,
    /// Write test results as JUnit's XML.
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
    /// Write the merged rows as one report.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Put the table of features between the lines `<!-- support:begin -->` and `<!-- support:end -->` of
    /// this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) readme: Option<PathBuf>,
    /// Write nothing, and fail with status 1 where --readme would change its file.
    #[arg(long, requires = "readme", conflicts_with_all = ["html", "markdown", "junit", "json"])]
    pub(crate) check: bool,
}
