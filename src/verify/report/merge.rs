//! Reports of several machines side by side, a column for each adapter.

use std::collections::HashSet;

use serde::Serialize;

use crate::error::Result;
use crate::verify::report::matrix::Matrix;
use crate::verify::report::{Adapter, CaseResult, Host, Report, Status, Totals, features, json};

/// Reports side by side.
#[derive(Debug, Clone, PartialEq)]
pub struct Merged {
    /// One for each adapter with its driver, in the order in which the reports name them.
    pub columns: Vec<Column>,
    /// Counts of all rows by status.
    pub totals: Totals,
}

/// All that reports say about one adapter with one driver.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// The adapter, as the first report describes it.
    pub adapter: Adapter,
    /// The runs its rows are from.
    pub sources: Vec<Source>,
    /// Its rows; [`CaseResult::adapter`] is the index of this column.
    pub cases: Vec<CaseResult>,
    /// Counts of its rows by status.
    pub totals: Totals,
}

/// Where and when rows were made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Source {
    /// Version of this crate.
    pub heedful: String,
    /// Git revision, empty when unknown.
    pub revision: String,
    /// When the run began, UTC.
    pub date: String,
    /// The machine.
    pub host: Host,
}

/// Puts reports side by side.
///
/// The same adapter with the same driver is one column, whatever reports it is in. A row that two reports
/// have alike (suite, case, kernel, seed and how it ended) is kept once; where they differ both are
/// kept, so that no run hides a failure of another.
pub fn merge(reports: Vec<Report>) -> Merged {
    let mut merged = Merged { columns: Vec::new(), totals: Totals::default() };
    let mut seen = HashSet::new();
    for report in reports {
        let Report { heedful, revision, date, host, adapters, cases, .. } = report;
        let source = Source { heedful, revision, date, host };
        let places: Vec<usize> = adapters.into_iter().map(|x| merged.place(x, &source)).collect();
        for mut case in cases {
            // A row of an adapter that its report does not list has no column; `Report::read` refuses it.
            let Some(place) = places.get(case.adapter) else { continue };
            case.adapter = *place;
            let CaseResult { name, suite, kernel, seed, status, .. } = case.clone();
            if seen.insert((*place, suite, name, kernel, seed, status)) {
                merged.totals.count(status);
                merged.columns[*place].totals.count(status);
                merged.columns[*place].cases.push(case);
            }
        }
    }
    merged
}

impl Merged {
    /// Index of the column of an adapter, which is new when there is none.
    fn place(&mut self, adapter: Adapter, source: &Source) -> usize {
        let key = |a: &Adapter| [&a.name, &a.backend, &a.driver, &a.driver_info].map(String::clone);
        let found = self.columns.iter().position(|column| key(&column.adapter) == key(&adapter));
        let place = found.unwrap_or_else(|| {
            let (sources, cases, totals) = (Vec::new(), Vec::new(), Totals::default());
            self.columns.push(Column { adapter, sources, cases, totals });
            self.columns.len() - 1
        });
        let sources = &mut self.columns[place].sources;
        if !sources.contains(source) {
            sources.push(source.clone());
        }
        place
    }

    /// Counts the rows of each adapter by what they exercise.
    pub fn matrix(&self) -> Matrix {
        Matrix::count(self, &features::all(self.cases()))
    }

    /// The rows of every column.
    pub fn cases(&self) -> impl Iterator<Item = &CaseResult> {
        self.columns.iter().flat_map(|column| &column.cases)
    }

    /// JSON that reads as a [`Report`] too: the adapters, their rows and the totals under the same names; and
    /// beside them `sources`, the runs of each adapter, and `matrix`. One row a line.
    ///
    /// # Errors
    /// An internal error, should a value not be representable.
    pub fn to_json(&self) -> Result<String> {
        let first = |of: fn(&Source) -> &str| {
            let mut all = self.columns.iter().flat_map(|column| &column.sources).map(of);
            let first = all.next().unwrap_or_default();
            if all.all(|other| other == first) { first } else { "several" }
        };
        let dates = self.columns.iter().flat_map(|column| &column.sources);
        json::lines(&Json {
            heedful: first(|source| &source.heedful),
            revision: first(|source| &source.revision),
            date: dates.map(|source| source.date.as_str()).max().unwrap_or_default(),
            host: Host {
                os: first(|source| &source.host.os).into(),
                cpu: first(|source| &source.host.cpu).into(),
            },
            adapters: self.columns.iter().map(|column| &column.adapter).collect(),
            sources: self.columns.iter().map(|column| column.sources.as_slice()).collect(),
            matrix: self.matrix().rows,
            cases: self.cases().collect(),
            totals: self.totals,
        })
    }
}

#[derive(Serialize)]
struct Json<'a> {
    heedful: &'a str,
    revision: &'a str,
    date: &'a str,
    host: Host,
    adapters: Vec<&'a Adapter>,
    sources: Vec<&'a [Source]>,
    matrix: Vec<crate::verify::report::Row>,
    cases: Vec<&'a CaseResult>,
    totals: Totals,
}

impl Column {
    /// The adapter and its backend: `name (backend)`.
    pub fn label(&self) -> String {
        format!("{} ({})", self.adapter.name, self.adapter.backend)
    }

    /// The driver and its version, each once.
    pub fn driver(&self) -> String {
        let Adapter { driver, driver_info, .. } = &self.adapter;
        let words = [driver, driver_info].map(|text| text.trim());
        let words: Vec<&str> = words.into_iter().filter(|text| !text.is_empty()).collect();
        words.join(", ")
    }

    /// Largest tolerance ratio of the rows that passed; `None` when none did.
    pub fn worst_ratio(&self) -> Option<f64> {
        let passed = self.cases.iter().filter(|case| case.status == Status::Pass);
        passed.filter_map(|case| case.tolerance_ratio).max_by(f64::total_cmp)
    }

    /// Time that the rows took, in seconds.
    pub fn seconds(&self) -> f64 {
        self.cases.iter().filter_map(|case| case.ms).sum::<f64>() / 1e3
    }

    /// One line: what is wrong with this adapter, or that everything that ran is right. A column where
    /// nothing ran says so.
    pub fn verdict(&self) -> String {
        match self.totals {
            Totals { fail: 1.., .. } => format!("{} wrong", self.totals.fail),
            totals if totals.ran() == 0 => "nothing ran".into(),
            Totals { expected_fail: 1.., .. } => {
                format!("right, but for {} known failures", self.totals.expected_fail)
            }
            Totals { pass, .. } => format!("all {pass} right"),
        }
    }

    /// Rows that failed, those furthest from right first: without a ratio (NaN, infinity or not run to its
    /// end) before those with one.
    pub fn failures(&self) -> Vec<&CaseResult> {
        let failed = self.cases.iter().filter(|case| case.status == Status::Fail);
        let mut failed: Vec<&CaseResult> = failed.collect();
        let ratio = |case: &CaseResult| case.tolerance_ratio.unwrap_or(f64::INFINITY);
        failed.sort_by(|a, b| ratio(b).total_cmp(&ratio(a)));
        failed
    }

    /// Each reason of rows with a status, and how many rows have it, the commonest first.
    pub fn reasons(&self, status: Status) -> Vec<(&str, usize)> {
        let mut reasons: Vec<(&str, usize)> = Vec::new();
        for case in self.cases.iter().filter(|case| case.status == status) {
            match reasons.iter_mut().find(|(reason, _)| *reason == case.reason) {
                Some((_, n)) => *n += 1,
                None => reasons.push((&case.reason, 1)),
            }
        }
        reasons.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        reasons
    }
}
