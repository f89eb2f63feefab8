//! The report of `heedful verify`: one JSON object that machines read and `heedful report` merges, and
//! the same as a page, as a table and as test results.
//!
//! [`merge`] puts reports of several machines side by side, a [`Column`] for each adapter;
//! [`Merged::matrix`] counts their rows by [feature](Row::feature).

mod command;
mod ended;
mod escape;
mod features;
mod html;
mod json;
mod junit;
mod markdown;
mod matrix;
mod merge;

pub use ended::Left;
pub(in crate::verify) use features::said_by;
pub use matrix::{Matrix, Row};
pub use merge::{Column, Merged, Source, merge};

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use web_time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};
use crate::verify::compare::Comparison;

/// Everything one run of `heedful verify` found out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of this crate.
    pub heedful: String,
    /// Git revision it was built from, empty when unknown.
    pub revision: String,
    /// When the run began, UTC, `YYYY-MM-DDThh:mm:ssZ`.
    pub date: String,
    /// The machine.
    pub host: Host,
    /// The adapters that were used, in the order that cases refer to.
    pub adapters: Vec<Adapter>,
    /// One row per case, adapter and kernel.
    pub cases: Vec<CaseResult>,
    /// Counts of the rows by status.
    pub totals: Totals,
}

/// The machine a report comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Operating system.
    pub os: String,
    /// Processor, by its own name where that can be read, else its architecture.
    pub cpu: String,
}

/// An adapter as the driver describes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Adapter {
    /// Device name.
    pub name: String,
    /// Backend, e.g. `vulkan`.
    pub backend: String,
    /// Driver name.
    pub driver: String,
    /// Driver version.
    pub driver_info: String,
    /// `discrete`, `integrated`, `virtual`, `cpu` or `other`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Limits by name.
    pub limits: BTreeMap<String, u64>,
    /// Names of the features it offers.
    pub features: Vec<String>,
    /// Smallest and largest subgroup.
    pub subgroup: [u32; 2],
}

/// How a case ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Right.
    Pass,
    /// Wrong.
    Fail,
    /// Wrong, as a known driver bug says it is.
    ExpectedFail,
    /// Not run; the reason says why.
    Unsupported,
}

/// One case on one adapter with one kernel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CaseResult {
    /// Name of the case.
    pub name: String,
    /// Suite or grid it is from.
    pub suite: String,
    /// Index into [`Report::adapters`].
    pub adapter: usize,
    /// Variant key of the kernel.
    pub kernel: String,
    /// How it ended.
    pub status: Status,
    /// Why it failed or was not run; empty in a pass.
    pub reason: String,
    /// Largest |x − e|.
    pub max_abs: Option<f64>,
    /// Largest |x − e| / |e|.
    pub max_rel: Option<f64>,
    /// Row of the worst element.
    pub worst_row: Option<usize>,
    /// Largest error divided by its allowance; `null` when that is not finite, or nothing was run.
    pub tolerance_ratio: Option<f64>,
    /// Seed of generated data.
    pub seed: Option<u64>,
    /// Time the case took, in milliseconds.
    pub ms: Option<f64>,
}

/// Rows by status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// All rows.
    pub total: usize,
    /// Right.
    pub pass: usize,
    /// Wrong.
    pub fail: usize,
    /// Wrong as expected.
    pub expected_fail: usize,
    /// Not run.
    pub unsupported: usize,
}

impl Report {
    /// An empty report of this build on this machine, now.
    pub fn new(revision: impl Into<String>) -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            heedful: env!("CARGO_PKG_VERSION").into(),
            revision: revision.into(),
            date: utc(since_1970.as_secs()),
            host: Host::here(),
            adapters: Vec::new(),
            cases: Vec::new(),
            totals: Totals::default(),
        }
    }

    /// Adds a row and counts it.
    pub fn push(&mut self, case: CaseResult) {
        self.totals.count(case.status);
        self.cases.push(case);
    }

    /// The report as JSON, one row a line.
    ///
    /// # Errors
    /// An internal error, should a value not be representable.
    pub fn to_json(&self) -> Result<String> {
        json::lines(self)
    }

    /// The report as JUnit's XML, see [`Merged::to_junit`].
    pub fn to_junit(&self) -> String {
        merge(vec![self.clone()]).to_junit()
    }

    /// The report as Markdown, see [`Merged::to_markdown`].
    pub fn to_markdown(&self) -> String {
        merge(vec![self.clone()]).to_markdown()
    }

    /// The report as a page, see [`Merged::to_html`].
    ///
    /// # Errors
    /// An internal error, should a value not be representable.
    pub fn to_html(&self) -> Result<String> {
        merge(vec![self.clone()]).to_html()
    }

    /// Reads a report from a file; its totals are counted anew.
    ///
    /// # Errors
    /// An invalid-argument error that names the file and what is wrong in it.
    pub fn read(path: &Path) -> Result<Self> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|e| Error::invalid(&file, e, "a readable report"))?;
        let mut report: Self = serde_json::from_str(&text)
            .map_err(|e| Error::invalid(&file, e, "a report of `heedful verify`"))?;
        if let Some(case) = report.cases.iter().find(|c| c.adapter >= report.adapters.len()) {
            let found = format!("adapter {} of {}", case.adapter, report.adapters.len());
            return Err(Error::invalid(format!("{file}, case {}", case.name), found, "one listed"));
        }
        report.totals = Totals::default();
        report.cases.iter().for_each(|case| report.totals.count(case.status));
        Ok(report)
    }
}

impl CaseResult {
    /// A row for a case that was not run.
    pub fn unsupported(
        name: impl Into<String>,
        suite: impl Into<String>,
        adapter: usize,
        reason: impl Into<String>,
    ) -> Self {
        Self {
            name: name.into(),
            suite: suite.into(),
            adapter,
            kernel: String::new(),
            status: Status::Unsupported,
            reason: reason.into(),
            max_abs: None,
            max_rel: None,
            worst_row: None,
            tolerance_ratio: None,
            seed: None,
            ms: None,
        }
    }

    /// Takes over the worst of some comparisons, each with the name of its output: status, reason
    /// and numbers.
    pub fn judge<N: std::fmt::Display>(&mut self, comparisons: &[(N, Comparison)]) {
        let wrong = comparisons.iter().filter(|(_, c)| !c.pass);
        let reasons: Vec<String> = wrong.map(|(n, c)| format!("{n}: {}", c.message())).collect();
        self.status = if reasons.is_empty() { Status::Pass } else { Status::Fail };
        self.reason = reasons.join("; ");
        let badness = |c: &Comparison| {
            let broken = c.class_mismatches > 0 || c.lengths.0 != c.lengths.1;
            if broken { f64::INFINITY } else { c.tolerance_ratio }
        };
        let worst = comparisons.iter().map(|(_, c)| c);
        if let Some(worst) = worst.max_by(|a, b| badness(a).total_cmp(&badness(b))) {
            self.max_abs = Some(worst.max_abs);
            self.max_rel = Some(worst.max_rel);
            self.worst_row = worst.worst_row;
            self.tolerance_ratio = Some(badness(worst)).filter(|ratio| ratio.is_finite());
        }
    }
}

impl Totals {
    /// Counts one row.
    pub fn count(&mut self, status: Status) {
        self.total += 1;
        *match status {
            Status::Pass => &mut self.pass,
            Status::Fail => &mut self.fail,
            Status::ExpectedFail => &mut self.expected_fail,
            Status::Unsupported => &mut self.unsupported,
        } += 1;
    }

    /// Rows that were run, however they ended.
    pub fn ran(&self) -> usize {
        self.pass + self.fail + self.expected_fail
    }

    /// How they ended, as short as can be: `✗ n` when n failed, `! n` when n failed as known driver bugs
    /// do, `✓` when all that ran passed, `–` when none could be run, nothing when there is none.
    pub fn symbol(&self) -> String {
        match self {
            Self { total: 0, .. } => String::new(),
            Self { fail: 1.., .. } => format!("✗ {}", self.fail),
            Self { expected_fail: 1.., .. } => format!("! {}", self.expected_fail),
            Self { pass: 1.., .. } => "✓".into(),
            Self { .. } => "–".into(),
        }
    }

    /// The same in words, with every count that is not 0.
    pub fn describe(&self) -> String {
        let counts = [
            (self.pass, "right"),
            (self.fail, "wrong"),
            (self.expected_fail, "wrong as expected"),
            (self.unsupported, "not supported"),
        ];
        let words: Vec<String> =
            counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        if words.is_empty() { "not run".into() } else { words.join(", ") }
    }
}

impl Host {
    /// The machine this runs on.
    pub fn here() -> Self {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let cpu = model.map_or(std::env::consts::ARCH, |(_, name)| name.trim());
        Self { os: std::env::consts::OS.into(), cpu: cpu.into() }
    }
}

/// Seconds since 1970 as `YYYY-MM-DDThh:mm:ssZ`; years begin in March, so that the day that leap years
/// add is the last (Hinnant, "chrono-compatible low-level date algorithms").
fn utc(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::{CaseResult, Report, Status, utc};
    use crate::verify::compare::{Tolerance, compare};

    #[test]
    fn dates_are_civil() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(utc(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(utc(1_767_225_599), "2025-12-31T23:59:59Z");
    }

    #[test]
    fn rows_are_judged_counted_and_written_as_agreed() -> crate::Result<()> {
        let tolerance = Tolerance::Recorded { rtol: 0.0, atol: 0.0 };
        let mut report = Report::new("abc");
        let mut row = CaseResult::unsupported("case", "quick", 0, "no reason");
        report.push(row.clone());
        row.judge(&[("o", compare(&[1.0], &[1.0], 1, &tolerance))]);
        assert_eq!((row.status, row.tolerance_ratio), (Status::Pass, Some(0.0)));
        report.push(row.clone());
        row.judge(&[("o", compare(&[1.0], &[2.0], 1, &tolerance))]);
        assert_eq!((row.status, row.tolerance_ratio), (Status::Fail, None));
        assert!(row.reason.starts_with("o: largest error"), "{}", row.reason);
        report.push(row);
        let json = report.to_json()?;
        for text in ["\"unsupported\"", "\"fail\"", "\"heedful\"", "\"tolerance_ratio\":null"] {
            assert!(json.contains(text), "{text} in {json}");
        }
        let totals = report.totals;
        assert_eq!((totals.total, totals.pass, totals.fail, totals.unsupported), (3, 1, 1, 1));
        Ok(())
    }
}
