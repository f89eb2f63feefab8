//! Records of results in a folder: CSV and provenance for each suite, pictures; comparing two of them.

use std::path::{Path, PathBuf};

use heedful::Error;

use super::output::{csv, number, rows_of};
use super::plot;
use super::rows::{Provenance, Record, Row, Verdict};
use crate::Outcome;
use crate::outputs::put;

/// The records of a folder.
pub(crate) struct Recorded(Vec<Record>);

/// Writes `SUITE.csv`, `SUITE.json` (where the rows come from) and `SUITE-*.svg` into a folder.
pub(super) fn write(folder: &Path, record: &Record) -> Outcome<Vec<PathBuf>> {
    let named = |e: std::io::Error| {
        Error::invalid("--record", format!("{}: {e}", folder.display()), "a folder to write to")
    };
    std::fs::create_dir_all(folder).map_err(named)?;
    let suite = &record.provenance.suite;
    let place = |extension: &str| folder.join(format!("{suite}.{extension}"));
    let provenance = serde_json::to_string_pretty(&record.provenance)
        .map_err(|e| Error::internal("writing provenance", e.to_string()))?;
    put(&place("csv"), csv(&record.rows)?.as_bytes())?;
    put(&place("json"), (provenance + "\n").as_bytes())?;
    let mut written = vec![place("csv"), place("json")];
    written.extend(plot::write(&place("svg"), record)?);
    Ok(written)
}

/// Reads every record of a folder.
pub(crate) fn read(folder: &Path) -> Outcome<Recorded> {
    let wanted = "a folder that `heedful bench --record` wrote";
    let refuse =
        |path: &Path, found: String| Error::invalid(path.display().to_string(), found, wanted);
    let entries = std::fs::read_dir(folder).map_err(|e| refuse(folder, e.to_string()))?;
    let mut tables: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|x| x == "csv"))
        .collect();
    tables.sort();
    let mut records = Vec::new();
    for table in tables {
        let origin = table.with_extension("json");
        let text = std::fs::read_to_string(&origin).map_err(|e| refuse(&origin, e.to_string()))?;
        let provenance: Provenance =
            serde_json::from_str(&text).map_err(|e| refuse(&origin, e.to_string()))?;
        let mut reader =
            csv::Reader::from_path(&table).map_err(|e| refuse(&table, e.to_string()))?;
        let rows: Result<Vec<Row>, _> = reader.deserialize().collect();
        let rows = rows.map_err(|e| refuse(&table, e.to_string()))?;
        records.push(Record { provenance, rows });
    }
    if records.is_empty() {
        return Err(refuse(folder, "no table".into()).into());
    }
    Ok(Recorded(records))
}

/// Two records side by side, in Markdown: medians, their ratio, and whether that is beyond the spread.
pub(crate) fn compare(a: &Recorded, b: &Recorded) -> String {
    let mut lines = Vec::new();
    for first in &a.0 {
        let suite = &first.provenance.suite;
        let Some(second) = b.0.iter().find(|x| x.provenance.suite == *suite) else {
            lines.push(format!("{suite}: only in the first"));
            continue;
        };
        let named = |x: &Record| {
            format!("{}, {} {}", x.provenance.device(), x.provenance.date, x.provenance.revision)
        };
        lines.push(format!("### {suite}\nA: {}\nB: {}\n", named(first), named(second)));
        lines.extend(rows_of(
            &["case", "path", "A ms", "B ms", "B / A", "beyond spread"].map(String::from),
            2,
        ));
        for row in &first.rows {
            let same =
                |x: &&Row| x.name == row.name && x.path == row.path && x.call() == row.call();
            let other = second.rows.iter().find(same);
            lines.push(compared(row, other));
        }
        lines.push(String::new());
    }
    lines.join("\n") + "\n"
}

fn compared(row: &Row, other: Option<&Row>) -> String {
    let (a, b) = (row.median_ms, other.and_then(|x| x.median_ms));
    let ratio = a.zip(b).map(|(a, b)| b / a);
    // Three deviations on either side, of both.
    let noise =
        3.0 * (row.spread_ms.unwrap_or(0.0) + other.and_then(|x| x.spread_ms).unwrap_or(0.0));
    let beyond = a.zip(b).map_or("-", |(a, b)| match b - a {
        d if d > noise => "slower",
        d if d < -noise => "faster",
        _ => "no",
    });
    format!(
        "| {} | {} | {} | {} | {} | {beyond} |",
        row.name,
        row.path,
        number(a),
        number(b),
        number(ratio)
    )
}

/// The tables of a README: for each suite that all records have, a line per call and a column per device and
/// path with milliseconds and, in brackets, what share of the device's limit that is.
pub(crate) fn readme(records: &[Recorded]) -> Vec<(String, String)> {
    let Some(first) = records.first() else { return Vec::new() };
    let suites = first.0.iter().map(|x| x.provenance.suite.clone());
    let table = |suite: String| {
        let of = |x: &'_ Recorded| x.0.iter().find(|x| x.provenance.suite == suite).cloned();
        let all: Option<Vec<Record>> = records.iter().map(of).collect();
        Some((format!("bench-{suite}"), side_by_side(&all?)))
    };
    suites.filter_map(table).collect()
}

fn side_by_side(records: &[Record]) -> String {
    let mut columns: Vec<(usize, String)> = Vec::new();
    let mut calls: Vec<(String, String)> = Vec::new();
    for (i, record) in records.iter().enumerate() {
        for row in record.rows.iter().filter(|row| row.verdict == Verdict::Ok) {
            let (column, call) = ((i, row.path.clone()), (row.name.clone(), row.call()));
            if !columns.contains(&column) {
                columns.push(column);
            }
            if !calls.contains(&call) {
                calls.push(call);
            }
        }
    }
    columns.sort();
    let devices: Vec<String> = records.iter().map(|x| short(&x.provenance)).collect();
    let header: Vec<String> = ["case".into(), "call".into()]
        .into_iter()
        .chain(columns.iter().map(|(i, path)| format!("{} {path}", devices[*i])))
        .collect();
    let mut lines: Vec<String> = rows_of(&header, 2).into();
    for (name, call) in &calls {
        let cell = |(i, path): &(usize, String)| {
            let same = |row: &&Row| row.name == *name && row.path == *path && row.call() == *call;
            let found = records[*i].rows.iter().find(same);
            let Some((row, ms)) = found.and_then(|row| Some((row, row.median_ms?))) else {
                return String::new();
            };
            let share = row.of_limit.map_or(String::new(), |x| format!(" ({:.0} %)", x * 100.0));
            format!("{}{share}", number(Some(ms)))
        };
        let cells: Vec<String> = columns.iter().map(cell).collect();
        lines.push(format!("| {name} | {call} | {} |", cells.join(" | ")));
    }
    let limits = records.iter().filter_map(|record| {
        let limits = super::output::limits(record.provenance.roofline.as_ref()?);
        let host = &record.provenance.host.cpu;
        Some(format!("{} ({host}), {limits}.", record.provenance.device()))
    });
    lines.push(String::new());
    lines.extend(limits);
    lines.join("\n")
}

/// A device in as few words as tell it from others.
fn short(from: &Provenance) -> String {
    let version = |text: &str| {
        let words = text.split(|c: char| c.is_whitespace() || c == '(').find(|w| w.contains('.'));
        words.map(str::to_owned)
    };
    let driver = from.driver.trim();
    match driver.split_once("Mesa ") {
        Some((_, rest)) => format!("Mesa {}", version(rest).unwrap_or_default()),
        None => from.adapter.split('(').next().unwrap_or_default().trim().to_owned(),
    }
}
