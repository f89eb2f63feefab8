//! Reports that outlive their run: written as cases end, so that Ctrl-C, a crash of the driver or of the machine
//! loses nothing, and `--resume` goes on.
//!
//! Beside the first report lies `FILE.running` with the case that is running. Where it is still there when a run
//! is resumed, that case ended the process: it becomes a failed row and is not tried again.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use heedful::Error;
use heedful::verify::report::{CaseResult, Report, Status};

use crate::Outcome;

/// Time between two writes of the report.
const INTERVAL: Duration = Duration::from_secs(10);

/// Where a run is saved.
pub(super) struct Saved {
    report: Option<PathBuf>,
    written: Instant,
}

impl Saved {
    /// Saves to the first of `reports` that is JSON in a file.
    pub(super) fn new(reports: &[PathBuf]) -> Self {
        let json = |path: &&PathBuf| path.extension().is_some_and(|x| x == "json");
        Self { report: reports.iter().find(json).cloned(), written: Instant::now() }
    }

    /// Where the name of the running case is kept.
    fn marker(&self) -> Option<PathBuf> {
        let report = self.report.as_ref()?;
        let mut name = report.file_name()?.to_owned();
        name.push(".running");
        Some(report.with_file_name(name))
    }

    /// Notes the case that begins.
    pub(super) fn begins(&self, adapter: usize, suite: &str, name: &str) -> Outcome {
        let Some(marker) = self.marker() else { return Ok(()) };
        write(&marker, &format!("{adapter}\n{suite}\n{name}\n"))
    }

    /// Notes that it ended; writes the report from time to time.
    pub(super) fn ended(&mut self, report: &Report) -> Outcome {
        if self.written.elapsed() >= INTERVAL {
            self.keep(report)?;
        }
        Ok(())
    }

    /// Writes the report as far as it is.
    pub(super) fn keep(&mut self, report: &Report) -> Outcome {
        if let Some(path) = &self.report {
            // A whole report or the one before it, never a part.
            let part = path.with_extension("json.part");
            write(&part, &(report.to_json()? + "\n"))?;
            std::fs::rename(&part, path).map_err(|e| refused(path, &e))?;
        }
        self.written = Instant::now();
        Ok(())
    }

    /// Forgets the running case: the process ends of its own will.
    pub(super) fn rest(&self) {
        if let Some(marker) = self.marker() {
            // Where it cannot be removed, the worst is one case that is not tried when the run is resumed.
            let _ = std::fs::remove_file(marker);
        }
    }

    /// The report of an earlier run, with the case that ended its process; `None` where there is none.
    pub(super) fn earlier(&self) -> Outcome<Option<Report>> {
        let Some(path) = &self.report else {
            let wanted = "--report FILE.json, the report to go on with";
            return Err(Error::invalid("--resume", "no report", wanted).into());
        };
        if !path.exists() {
            return Ok(None);
        }
        let mut report = Report::read(path)?;
        let left = self.marker().and_then(|marker| std::fs::read_to_string(marker).ok());
        let mut lines = left.as_deref().unwrap_or_default().lines();
        if let (Some(adapter), Some(suite), Some(name)) = (lines.next(), lines.next(), lines.next())
        {
            let adapter = adapter.parse().unwrap_or(usize::MAX);
            let known = |x: &CaseResult| x.adapter == adapter && x.suite == suite && x.name == name;
            if adapter < report.adapters.len() && !report.cases.iter().any(known) {
                let reason = "the process ended while this case ran";
                let mut row = CaseResult::unsupported(name, suite, adapter, reason);
                row.status = Status::Fail;
                report.push(row);
            }
        }
        Ok(Some(report))
    }
}

fn write(path: &Path, text: &str) -> Outcome {
    Ok(std::fs::write(path, text).map_err(|e| refused(path, &e))?)
}

fn refused(path: &Path, error: &std::io::Error) -> Error {
    Error::invalid(path.display().to_string(), error, "a file to write")
}
