//! Markdown: for a pull request, and the compact table for a README.

use std::fmt::Write;

use crate::verify::report::command::replay;
use crate::verify::report::escape::{code, markdown};
use crate::verify::report::{CaseResult, Column, Merged, Row, Status};

/// What the symbols of the matrix mean.
const LEGEND: &str = "✓ all that ran is right · ✗ n wrong · ! n wrong as known driver bugs make them · \
    – not supported · blank: not run";

/// Failures that are written out for each adapter; the others are counted.
const SHOWN: usize = 100;

impl Merged {
    /// Totals of each adapter, the matrix, every failure with the command that repeats it, and why rows
    /// were not supported.
    pub fn to_markdown(&self) -> String {
        let mut text = format!("# heedful verify\n\n{}\n\n", markdown(&self.headline()));
        self.write_totals(&mut text);
        self.write_matrix(&mut text);
        for column in self.columns.iter().filter(|column| column.totals.fail > 0) {
            write_failures(&mut text, column);
        }
        for (title, status) in
            [("Known failures", Status::ExpectedFail), ("Not supported", Status::Unsupported)]
        {
            self.write_reasons(&mut text, title, status);
        }
        text
    }

    /// The matrix in few lines, for a README: features of a group that look alike on every adapter share
    /// a line.
    pub fn support_table(&self) -> String {
        let mut text = self.matrix_header();
        let cells = |row: &Row| row.cells.iter().map(|cell| cell.symbol()).collect::<Vec<_>>();
        for group in self.matrix().groups() {
            let mut lines: Vec<(Vec<String>, Vec<String>)> = Vec::new();
            for row in group {
                let feature = markdown(&row.feature);
                match lines.iter_mut().find(|(shown, _)| *shown == cells(row)) {
                    Some((_, features)) => features.push(feature),
                    None => lines.push((cells(row), vec![feature])),
                }
            }
            for (cells, features) in lines {
                let features = format!("**{}**: {}", group[0].group, features.join(", "));
                let _ = writeln!(text, "| {features} | {} |", cells.join(" | "));
            }
        }
        let checked = self.columns.iter().map(|column| {
            let worst = column.worst_ratio().map_or(String::new(), |x| format!(", worst {x:.2}"));
            format!("{}{worst}, {}", column.verdict(), day(column))
        });
        let checked: Vec<String> = checked.collect();
        let _ = writeln!(text, "| **Checked** | {} |", checked.join(" | "));
        let _ = writeln!(
            text,
            "\n{LEGEND}; worst: largest error of what is right, of what is allowed."
        );
        text
    }

    /// One sentence: how many rows on how many adapters, and how they ended.
    pub fn headline(&self) -> String {
        let adapters = match self.columns.len() {
            1 => "1 adapter".to_owned(),
            n => format!("{n} adapters"),
        };
        let silent = self.columns.iter().filter(|column| column.totals.ran() == 0).count();
        let silent = if silent > 0 { format!("; nothing ran on {silent}") } else { String::new() };
        format!("{} rows on {adapters}: {}{silent}.", self.totals.total, self.totals.describe())
    }

    fn write_totals(&self, text: &mut String) {
        text.push_str(
            "| adapter | driver | host | date | right | wrong | known | not supported | ",
        );
        text.push_str("features run | worst ratio | seconds |\n");
        text.push_str("|---|---|---|---|--:|--:|--:|--:|--:|--:|--:|\n");
        let matrix = self.matrix();
        for (i, column) in self.columns.iter().enumerate() {
            let totals = &column.totals;
            let (ran, features) = matrix.coverage(i);
            let hosts = distinct(column, |s| format!("{}, {}", s.host.os, s.host.cpu));
            let dates = distinct(column, |s| s.date.clone());
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} | {} | {ran} of {features} | {} | {:.1} |",
                markdown(&column.label()),
                markdown(&column.driver()),
                markdown(&hosts.join("; ")),
                markdown(&dates.join("; ")),
                totals.pass,
                totals.fail,
                totals.expected_fail,
                totals.unsupported,
                column.worst_ratio().map_or("–".into(), |ratio| format!("{ratio:.3}")),
                column.seconds()
            );
        }
        text.push('\n');
    }

    fn matrix_header(&self) -> String {
        let name = |column: &Column| {
            format!("{}<br>{}", markdown(&column.label()), markdown(&column.driver()))
        };
        let names: Vec<String> = self.columns.iter().map(name).collect();
        format!("| | {} |\n|---|{}\n", names.join(" | "), ":-:|".repeat(names.len()))
    }

    fn write_matrix(&self, text: &mut String) {
        let _ = write!(text, "## Features\n\n{LEGEND}\n\n{}", self.matrix_header());
        for group in self.matrix().groups() {
            let _ = writeln!(text, "| **{}** |{}", group[0].group, " |".repeat(self.columns.len()));
            for row in group {
                let cells: Vec<String> = row.cells.iter().map(|cell| cell.symbol()).collect();
                let _ = writeln!(text, "| {} | {} |", markdown(&row.feature), cells.join(" | "));
            }
        }
        text.push('\n');
    }

    fn write_reasons(&self, text: &mut String, title: &str, status: Status) {
        let mut begun = false;
        for column in &self.columns {
            let reasons = column.reasons(status);
            if reasons.is_empty() {
                continue;
            }
            if !begun {
                let _ = write!(text, "## {title}\n\n");
                begun = true;
            }
            let _ = write!(text, "{}:\n\n", markdown(&column.label()));
            for (reason, n) in reasons {
                let _ = writeln!(text, "- {n} × {}", markdown(reason));
            }
            text.push('\n');
        }
    }
}

fn write_failures(text: &mut String, column: &Column) {
    let _ = write!(text, "## Wrong on {}\n\n", markdown(&column.label()));
    let failures = column.failures();
    for case in failures.iter().take(SHOWN) {
        let _ = writeln!(text, "- {} — {}", code(&case.name), markdown(&case.reason));
        let _ = writeln!(text, "  <br>{} {}", code(&case.kernel), numbers(case));
        let _ = writeln!(text, "  <br>{}", code(&replay(column, case)));
    }
    if let Some(more @ 1..) = failures.len().checked_sub(SHOWN) {
        let _ = writeln!(text, "- and {more} more");
    }
    text.push('\n');
}

fn numbers(case: &CaseResult) -> String {
    let mut words: Vec<String> = Vec::new();
    words.extend(case.max_abs.map(|x| format!("max abs {x:.3e}")));
    words.extend(case.max_rel.map(|x| format!("max rel {x:.3e}")));
    words.extend(case.worst_row.map(|row| format!("worst row {row}")));
    words.extend(case.tolerance_ratio.map(|x| format!("{x:.3} of the tolerance")));
    words.extend(case.seed.map(|seed| format!("seed {seed}")));
    words.join(", ")
}

/// What the runs of a column say, each once.
pub(super) fn distinct(
    column: &Column,
    of: impl Fn(&crate::verify::report::Source) -> String,
) -> Vec<String> {
    let mut all: Vec<String> = column.sources.iter().map(of).collect();
    all.dedup();
    all
}

/// The day of the newest run.
fn day(column: &Column) -> &str {
    let newest = column.sources.iter().map(|source| source.date.as_str()).max();
    newest.and_then(|date| date.split('T').next()).unwrap_or_default()
}
