//! Tables, progress and JSON output.

use std::io::IsTerminal;
use std::path::Path;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::Outcome;
use crate::outputs::write_text;

/// A table with a header row; columns from `numbers` on are aligned right.
pub(crate) fn table(header: &[&str], numbers: usize) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    for (i, column) in table.column_iter_mut().enumerate() {
        if i >= numbers {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// A progress bar on stderr, only on a terminal, and only once two seconds have passed.
pub(crate) fn progress(steps: usize, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(steps as u64), ProgressDrawTarget::hidden());
    if std::io::stderr().is_terminal() {
        let style = ProgressStyle::with_template(
            "{prefix} {bar:24} {pos}/{len} {per_sec} {eta} {wide_msg}",
        );
        if let Ok(style) = style {
            bar.set_style(style);
        }
        bar.set_prefix(what);
    }
    bar
}

/// Shows the bar if the work has taken two seconds already, and moves it on to what begins now.
pub(crate) fn step(bar: &ProgressBar, what: &str) {
    bar.inc(1);
    bar.set_message(what.to_owned());
    let late = bar.elapsed().as_secs() >= 2;
    if late && bar.is_hidden() && std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::stderr());
    }
}

/// Writes JSON to a file, or to standard output for `-`.
pub(crate) fn write_json(path: &Path, json: &str) -> Outcome {
    write_text(path, json)
}
