//! The command that runs one row again.

use crate::verify::report::escape::shell;
use crate::verify::report::{CaseResult, Column};

/// Names the adapter by its name and backend, the case by its name, and the seed of generated data. Recorded
/// cases are looked for in the folder of this repository that has the name of their suite.
pub(super) fn replay(column: &Column, case: &CaseResult) -> String {
    let mut words = vec!["heedful verify --adapter".to_owned(), shell(&adapter(column))];
    match case.seed {
        Some(_) => words.push(format!("--grid {}", shell(&case.suite))),
        None => words.push(format!("--cases {}", shell(&format!("tests/golden/{}", case.suite)))),
    }
    words.push(format!("--filter {}", shell(&case.name)));
    words.extend(case.seed.map(|seed| format!("--seed {seed}")));
    words.join(" ")
}

/// The name alone would find the same device on another backend as well.
pub(super) fn adapter(column: &Column) -> String {
    format!("{} / {}", column.adapter.name, column.adapter.backend)
}
