//! All rows as JSON for the page's script: texts once, rows as lists of numbers.
//!
//! `{texts, features, sets, adapters: [{argument, rows}]}`: a row is `[name, suite, kernel, status, reason,
//! set, max_abs, max_rel, worst_row, ratio, ms, seed]`; name, suite, kernel and reason are indices into
//! `texts`, `set` is one into `sets`, the lists of features that rows exercise. Seeds are texts, since
//! a script's numbers have 53 bits; other numbers have four digits, which is what is shown.

use std::collections::HashMap;
use std::hash::Hash;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::verify::report::command;
use crate::verify::report::features::{self, Feature};
use crate::verify::report::{CaseResult, Merged, Status};

#[derive(Serialize)]
struct Data<'a> {
    texts: Vec<&'a str>,
    features: Vec<&'a str>,
    sets: Vec<Vec<usize>>,
    adapters: Vec<Rows>,
}

#[derive(Serialize)]
struct Rows {
    /// What `heedful verify --adapter` finds this adapter by.
    argument: String,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row(
    usize,
    usize,
    usize,
    usize,
    usize,
    usize,
    Option<f64>,
    Option<f64>,
    Option<usize>,
    Option<f64>,
    Option<f64>,
    Option<String>,
);

/// Things in the order in which they came, each once.
struct Pool<T> {
    index: HashMap<T, usize>,
}

impl<T: Eq + Hash> Pool<T> {
    fn new() -> Self {
        Self { index: HashMap::new() }
    }

    fn add(&mut self, thing: T) -> usize {
        let next = self.index.len();
        *self.index.entry(thing).or_insert(next)
    }

    fn list(self) -> Vec<T> {
        let mut list: Vec<(T, usize)> = self.index.into_iter().collect();
        list.sort_unstable_by_key(|(_, i)| *i);
        list.into_iter().map(|(thing, _)| thing).collect()
    }
}

/// JSON that can stand in a `script` element.
pub(super) fn rows(merged: &Merged, features: &[Feature]) -> Result<String> {
    let (mut texts, mut sets) = (Pool::new(), Pool::new());
    let mut adapters = Vec::new();
    for column in &merged.columns {
        let rows = column.cases.iter().map(|case| row(case, features, &mut texts, &mut sets));
        adapters.push(Rows { rows: rows.collect(), argument: command::adapter(column) });
    }
    let features = features.iter().map(|feature| feature.name.as_str()).collect();
    let data = Data { texts: texts.list(), features, sets: sets.list(), adapters };
    let json = serde_json::to_string(&data)
        .map_err(|e| Error::internal("writing a report", e.to_string()))?;
    // What would end the element, or begin a comment in it.
    Ok(json.replace('<', "\\u003c"))
}

fn row<'a>(
    case: &'a CaseResult,
    all: &[Feature],
    texts: &mut Pool<&'a str>,
    sets: &mut Pool<Vec<usize>>,
) -> Row {
    let status = match case.status {
        Status::Pass => 0,
        Status::Fail => 1,
        Status::ExpectedFail => 2,
        Status::Unsupported => 3,
    };
    Row(
        texts.add(&case.name),
        texts.add(&case.suite),
        texts.add(&case.kernel),
        status,
        texts.add(&case.reason),
        sets.add(features::of(case, all)),
        case.max_abs.and_then(short),
        case.max_rel.and_then(short),
        case.worst_row,
        case.tolerance_ratio.and_then(short),
        case.ms.and_then(short),
        case.seed.map(|seed| seed.to_string()),
    )
}

/// To four digits.
fn short(x: f64) -> Option<f64> {
    format!("{x:.3e}").parse().ok().filter(|x: &f64| x.is_finite())
}
