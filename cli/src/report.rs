//! `heedful report`: reports of several machines side by side, as a page, a table, test results or JSON.

use std::path::PathBuf;

use clap::Args;
use heedful::Error;
use heedful::verify::report::{Merged, Report, merge};

use crate::outputs::{check, write_text};
use crate::splice::Spliced;
use crate::{Failure, Outcome, bench};

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

/// Merges the reports, writes what is asked for, and fails where a row does.
pub(crate) fn report(args: &ReportArgs) -> Outcome {
    if !args.bench.is_empty() {
        return records(args);
    }
    let outputs = [
        ("--html", &args.html),
        ("--markdown", &args.markdown),
        ("--junit", &args.junit),
        ("--json", &args.json),
    ];
    check(outputs.iter().filter_map(|(option, file)| Some((*option, file.as_ref()?))))?;
    let reports = args.reports.iter().map(|path| Report::read(path));
    let merged = merge(reports.collect::<Result<Vec<Report>, _>>()?);
    // The one output that is also an input: what is wrong with it is known before anything is written.
    let readme = args.readme.as_ref().map(|path| {
        let mut file = Spliced::open(path)?;
        file.splice("support", &merged.support_table())?;
        Ok::<_, Error>(file)
    });
    let readme = readme.transpose()?;
    if args.check {
        readme.as_ref().map_or(Ok(()), Spliced::check)?;
        return verdict(&merged);
    }
    if let Some(path) = &args.html {
        write_text(path, &merged.to_html()?)?;
    }
    if let Some(path) = &args.markdown {
        write_text(path, &merged.to_markdown())?;
    }
    if let Some(path) = &args.junit {
        write_text(path, &merged.to_junit())?;
    }
    if let Some(path) = &args.json {
        write_text(path, &merged.to_json()?)?;
    }
    if let Some(readme) = &readme {
        readme.write()?;
    }
    if readme.is_none() && outputs.iter().all(|(_, file)| file.is_none()) {
        write_text("-".as_ref(), &merged.to_markdown())?;
    }
    verdict(&merged)
}

/// Compares records of the bench, or puts their tables into a file.
fn records(args: &ReportArgs) -> Outcome {
    check(args.markdown.iter().map(|file| ("--markdown", file)))?;
    let records = args.bench.iter().map(|folder| bench::read(folder));
    let records = records.collect::<Outcome<Vec<bench::Recorded>>>()?;
    if let Some(path) = &args.readme {
        let mut file = Spliced::open(path)?;
        for (name, table) in bench::readme(&records) {
            if file.has(&name) {
                file.splice(&name, &table)?;
            }
        }
        return if args.check { file.check() } else { file.write() };
    }
    let [a, b] = &records[..] else {
        let found = format!("{} folders", records.len());
        return Err(Error::invalid("--bench", found, "two to compare, or --readme").into());
    };
    let to = args.markdown.as_deref().unwrap_or("-".as_ref());
    write_text(to, bench::compare(a, b).trim_end())
}

/// A failure, or an adapter that nothing ran on, is not a good end.
fn verdict(merged: &Merged) -> Outcome {
    let totals = &merged.totals;
    if totals.fail > 0 {
        return Err(Failure::Wrong(format!("{} of {} rows failed", totals.fail, totals.total)));
    }
    match merged.columns.iter().find(|column| column.totals.ran() == 0) {
        Some(column) => Err(Failure::Wrong(format!("no case was run on {}", column.label()))),
        None if merged.columns.is_empty() => Err(Failure::Wrong("no report has an adapter".into())),
        None => Ok(()),
    }
}
