//! A record as a table for people, as Markdown and as CSV.

use heedful::Error;
use heedful::bench::{Buffers, Limit, Roofline};

use super::rows::{Record, Row, Verdict};
use crate::Outcome;
use crate::table::table;

/// Columns of tables for people.
const HEADER: [&str; 19] = [
    "case",
    "call",
    "path",
    "ms",
    "± ms",
    "× best",
    "GFLOP/s",
    "done/asked",
    "of forward",
    "GB/s",
    "of limit",
    "of matmul",
    "of f32",
    "of matrix",
    "scratch KiB",
    "first ms",
    "max error",
    "of allowed",
    "verdict",
];

/// Prints the table, the device's limits above it and what went wrong below.
pub(super) fn print(record: &Record) {
    head(record).iter().for_each(|line| println!("{line}"));
    let mut lines = table(&HEADER, 3);
    record.rows.iter().for_each(|row| {
        lines.add_row(cells(row));
    });
    println!("{lines}");
    notes(record).iter().for_each(|line| println!("{line}"));
}

/// The same in Markdown.
pub(super) fn markdown(record: &Record) -> String {
    let mut lines = head(record);
    lines.push(String::new());
    lines.extend(rows_of(&HEADER.map(String::from), 3));
    let escaped = |cell: String| cell.replace('|', "\\|");
    let line = |row: &Row| format!("| {} |", cells(row).map(escaped).join(" | "));
    lines.extend(record.rows.iter().map(line));
    lines.push(String::new());
    lines.extend(notes(record));
    lines.join("\n") + "\n"
}

/// Head and rule of a Markdown table; columns from `numbers` on are aligned right.
pub(super) fn rows_of(header: &[String], numbers: usize) -> [String; 2] {
    let rule: Vec<&str> =
        (0..header.len()).map(|i| if i < numbers { "---" } else { "---:" }).collect();
    [format!("| {} |", header.join(" | ")), format!("|{}|", rule.join("|"))]
}

/// One record of CSV per row, with a header.
pub(super) fn csv(rows: &[Row]) -> Outcome<String> {
    let failed = |e: String| Error::internal("writing CSV", e);
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.serialize(row).map_err(|e| failed(e.to_string()))?;
    }
    let bytes = writer.into_inner().map_err(|e| failed(e.to_string()))?;
    Ok(String::from_utf8(bytes).map_err(|e| failed(e.to_string()))?)
}

/// The device and its limits, line by line.
fn head(record: &Record) -> Vec<String> {
    let from = &record.provenance;
    let mut lines = vec![from.device()];
    lines.extend(from.roofline.as_ref().map(limits));
    lines.extend(from.matmul.as_ref().map(|m| {
        let (ms, clock) = (m.time.median_ms, m.time.clock);
        format!(
            "plain tiled matmul {}: {ms:.2} ms, {:.1} GFLOP/s ({clock:?} clock)",
            m.shape, m.gflops
        )
    }));
    lines
}

/// The measured limits on one line.
pub(crate) fn limits(roofline: &Roofline) -> String {
    let f16 = roofline.f16_gflops.map_or(String::new(), |x| format!(", f16 {x:.0}"));
    let matrix = roofline
        .matrix_gflops
        .map_or(String::new(), |x| format!(", matrix units {}", number(Some(x))));
    format!(
        "limits measured: {:.0} GFLOP/s f32{f16}{matrix}; memory {:.1} GB/s read, {:.1} copied, {:.1} from caches; \
         {:.1} us a dispatch, {:.0} us a submission ({:?} clock)",
        roofline.f32_gflops,
        roofline.read_gbps,
        roofline.copy_gbps,
        roofline.cached_gbps,
        roofline.dispatch_us,
        roofline.submit_us,
        roofline.clock
    )
}

/// A number with as many digits as tell something.
pub(super) fn number(x: Option<f64>) -> String {
    let Some(x) = x else { return "-".into() };
    let digits = if x >= 100.0 {
        0
    } else if x >= 10.0 {
        1
    } else if x >= 0.1 {
        2
    } else {
        4
    };
    format!("{x:.digits$}")
}

fn percent(x: Option<f64>) -> String {
    x.map_or("-".into(), |x| format!("{:.0} %", x * 100.0))
}

fn cells(row: &Row) -> [String; 19] {
    let limit = match row.limit {
        Some(Limit::Compute) => " compute",
        Some(Limit::Memory) => " memory",
        Some(Limit::Dispatch) => " dispatch",
        None => "",
    };
    let verdict = match row.verdict {
        Verdict::Ok => "ok",
        Verdict::Wrong => "WRONG",
        Verdict::Failed => "FAILED",
        Verdict::Skipped => "skipped",
    };
    [
        row.name.clone(),
        row.call(),
        row.path.clone(),
        number(row.median_ms),
        number(row.spread_ms),
        row.of_best.map_or("-".into(), |x| format!("{x:.2}")),
        number(row.gflops),
        row.done_gflop.map_or("-".into(), |done| format!("{:.2}", done / row.gflop)),
        percent(row.of_forward),
        number(row.gbps),
        format!("{}{limit}", percent(row.of_limit)),
        percent(row.of_matmul),
        percent(row.of_f32),
        percent(row.of_matrix),
        (row.workspace_bytes >> 10).to_string(),
        row.first_use_ms.map_or("-".into(), |x| format!("{x:.0}")),
        row.max_abs.map_or("-".into(), |x| format!("{x:.1e}")),
        row.tolerance_ratio.map_or("-".into(), |x| format!("{x:.2}")),
        verdict.into(),
    ]
}

/// Why rows have no time, and how the others were timed.
fn notes(record: &Record) -> Vec<String> {
    let rows = &record.rows;
    let mut lines: Vec<String> = rows
        .iter()
        .filter(|row| row.verdict != Verdict::Ok)
        .map(|row| format!("{:?} {} {}: {}", row.verdict, row.name, row.path, row.reason))
        .collect();
    if rows.iter().any(|row| row.buffers == Some(Buffers::Rotated)) {
        lines.push(
            "Every run reads other copies of its tensors, past the caches; --same-buffers leaves them warm.".into(),
        );
    }
    lines
}
