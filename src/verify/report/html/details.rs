//! What is below the matrix: failures down to the element, and each adapter in full.

use std::fmt::Write;

use crate::verify::report::command::replay;
use crate::verify::report::escape::markup;
use crate::verify::report::html::class;
use crate::verify::report::{CaseResult, Column, Merged, Status};

/// Failures of an adapter that are open; the others are folded away.
const OPEN: usize = 25;

impl Merged {
    pub(super) fn write_failures(&self, page: &mut String) {
        if self.totals.fail == 0 {
            return;
        }
        page.push_str("<section id=\"failures\">\n<h2>Failures</h2>\n");
        for column in self.columns.iter().filter(|column| column.totals.fail > 0) {
            let (label, failures) = (markup(&column.label()), column.failures());
            let _ = writeln!(page, "<h3>{label} <small>{} wrong</small></h3>", failures.len());
            let (open, folded) = failures.split_at(failures.len().min(OPEN));
            open.iter().for_each(|case| write_failure(page, column, case));
            if !folded.is_empty() {
                let _ = writeln!(page, "<details><summary>{} more</summary>", folded.len());
                folded.iter().for_each(|case| write_failure(page, column, case));
                page.push_str("</details>\n");
            }
        }
        page.push_str("</section>\n");
    }

    pub(super) fn write_adapters(&self, page: &mut String) {
        page.push_str("<section id=\"adapters\">\n<h2>Adapters</h2>\n");
        page.push_str(
            "<noscript><p>The lists of all rows need scripts; failures are above.</p></noscript>\n",
        );
        for (i, column) in self.columns.iter().enumerate() {
            write_adapter(page, i, column);
        }
        page.push_str("</section>\n");
    }
}

fn write_failure(page: &mut String, column: &Column, case: &CaseResult) {
    let _ = write!(
        page,
        "<article class=\"failure\">\n<h4>{}</h4>\n<p class=\"reason\">{}</p>\n<dl>",
        markup(&case.name),
        markup(&case.reason)
    );
    let number = |x: Option<f64>| x.map_or("–".into(), |x| format!("{x:.3e}"));
    let whole = |x: Option<u64>| x.map_or("–".into(), |x| x.to_string());
    let ratio = case.tolerance_ratio.map_or("–".into(), |ratio| format!("{ratio:.3}"));
    for (term, value) in [
        ("largest error", number(case.max_abs)),
        ("relative", number(case.max_rel)),
        ("worst row", whole(case.worst_row.map(|row| row as u64))),
        ("of tolerance", ratio),
        ("suite", case.suite.clone()),
        ("seed", whole(case.seed)),
        ("kernel", case.kernel.clone()),
    ] {
        let _ = write!(page, "<div><dt>{term}</dt><dd>{}</dd></div>", markup(&value));
    }
    let _ = writeln!(page, "</dl>\n<pre>{}</pre>\n</article>", markup(&replay(column, case)));
}

fn write_adapter(page: &mut String, index: usize, column: &Column) {
    let adapter = &column.adapter;
    let about = [&*adapter.backend, &*column.driver()].join(" · ");
    let _ = write!(
        page,
        "<details class=\"adapter\" id=\"adapter-{index}\">\n<summary><b>{}</b> <small>{}</small> \
        <span class=\"badge {}\">{}</span></summary>\n",
        markup(&adapter.name),
        markup(about.trim_end_matches(" · ")),
        class(&column.totals),
        markup(&column.verdict())
    );
    write_reasons(page, "Known failures", &column.reasons(Status::ExpectedFail));
    write_reasons(page, "Not supported", &column.reasons(Status::Unsupported));
    let _ = writeln!(page, "<h4>All {} rows</h4>", column.totals.total);
    let _ = writeln!(page, "<div class=\"rows\" data-adapter=\"{index}\"></div>");
    let _ = write!(
        page,
        "<details class=\"limits\"><summary>Limits and features</summary>\n<p>{}, subgroups of {} to \
        {}</p>\n<table>\n",
        markup(&adapter.kind),
        adapter.subgroup[0],
        adapter.subgroup[1]
    );
    for (name, limit) in &adapter.limits {
        let _ = writeln!(page, "<tr><th scope=\"row\">{}</th><td>{limit}</td></tr>", markup(name));
    }
    let features = markup(&adapter.features.join(", "));
    let _ = writeln!(page, "</table>\n<p class=\"names\">{features}</p>\n</details>\n</details>");
}

fn write_reasons(page: &mut String, title: &str, reasons: &[(&str, usize)]) {
    if reasons.is_empty() {
        return;
    }
    let _ = writeln!(page, "<h4>{title}</h4>\n<table class=\"reasons\">");
    for (reason, n) in reasons {
        let _ = writeln!(page, "<tr><td>{n}</td><td>{}</td></tr>", markup(reason));
    }
    page.push_str("</table>\n");
}
