//! What a test did not try here, said where it is seen: the harness keeps to itself what a passing test prints.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::fmt::Display;
use std::io::Write;

/// The variable that names a file for these lines; `./test` sets it and shows the file at its end.
pub(crate) const LIST: &str = "HEEDFUL_SKIPPED";

/// Says that a test, or the part of it that `why` names, was not run.
pub(crate) fn skipped(test: &str, why: impl Display) {
    say(&format!("SKIPPED {test}: {why}\n"));
}

/// Says what of a test the adapter cannot run.
pub(crate) fn unsupported(test: &str, why: impl Display) {
    say(&format!("UNSUPPORTED {test}: {why}\n"));
}

/// One write each, so that lines of tests that run side by side stay whole. Standard error itself is not captured.
fn say(line: &str) {
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os(LIST) {
        let list = std::fs::OpenOptions::new().append(true).create(true).open(&path);
        let written = list.and_then(|mut list| list.write_all(line.as_bytes()));
        written.unwrap_or_else(|e| panic!("{LIST}={}: {e}", path.display()));
    }
}
