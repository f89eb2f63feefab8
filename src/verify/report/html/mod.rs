//! One page that needs nothing else: totals of each adapter, the matrix, every failure, and all rows on
//! demand.
//!
//! Without scripts everything is there but the lists of all rows and the links of the matrix into them.

mod data;
mod details;

use std::fmt::Write;

use crate::error::Result;
use crate::verify::report::escape::markup;
use crate::verify::report::features;
use crate::verify::report::markdown::distinct;
use crate::verify::report::matrix::Matrix;
use crate::verify::report::{Column, Merged, Totals};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

impl Merged {
    /// One page with everything in it, for a browser or for paper: dark where the reader's system is, and
    /// without requests to anywhere.
    ///
    /// # Errors
    /// An internal error, should a value not be representable.
    pub fn to_html(&self) -> Result<String> {
        let features = features::all(self.cases());
        let matrix = Matrix::count(self, &features);
        let mut page = String::from("<!doctype html>\n<html lang=\"en\">\n<head>\n");
        page.push_str("<meta charset=\"utf-8\">\n<title>heedful verify</title>\n");
        page.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
        page.push_str("<meta name=\"color-scheme\" content=\"light dark\">\n");
        let _ = writeln!(page, "<style>\n{STYLE}</style>\n</head>\n<body>");
        self.write_header(&mut page, &matrix);
        self.write_matrix_table(&mut page, &matrix);
        self.write_failures(&mut page);
        self.write_adapters(&mut page);
        page.push_str("<footer>Tolerance is measured for each row of each output from the error of an \
            honest computation in the same precision; a ratio of 1 is all that is allowed. Recorded \
            cases are run from the folder that has the name of their suite.</footer>\n");
        let data = data::rows(self, &features)?;
        let _ = writeln!(page, "<script type=\"application/json\" id=\"rows\">{data}</script>");
        let _ = writeln!(page, "<script>\n{SCRIPT}</script>\n</body>\n</html>");
        Ok(page)
    }

    fn write_header(&self, page: &mut String, matrix: &Matrix) {
        let class = class(&self.totals);
        let headline = markup(&self.headline());
        let _ = write!(
            page,
            "<header>\n<h1>heedful verify</h1>\n<p class=\"headline {class}\">{headline}</p>\n"
        );
        page.push_str("<nav><a href=\"#features\">Features</a>");
        if self.totals.fail > 0 {
            let _ = write!(page, "<a href=\"#failures\">Failures ({})</a>", self.totals.fail);
        }
        page.push_str("<a href=\"#adapters\">Adapters</a></nav>\n</header>\n");
        page.push_str("<section class=\"wide\">\n<table class=\"totals\">\n<thead><tr>");
        for (name, why) in [
            ("Adapter", ""),
            ("Verdict", ""),
            ("Right", "rows that passed"),
            ("Wrong", "rows that failed"),
            ("Known", "rows that failed as a known driver bug makes them"),
            ("Unsupported", "rows that no kernel of their path serves here"),
            ("Features run", "rows of the matrix below of which at least one case ran"),
            ("Worst ratio", "largest error of a row that passed, of what is allowed"),
            ("Seconds", "time that the rows took"),
        ] {
            let _ = write!(page, "<th scope=\"col\" title=\"{why}\">{name}</th>");
        }
        page.push_str("</tr></thead>\n<tbody>\n");
        for (i, column) in self.columns.iter().enumerate() {
            write_total(page, i, column, matrix.coverage(i));
        }
        page.push_str("</tbody>\n</table>\n</section>\n");
    }

    fn write_matrix_table(&self, page: &mut String, matrix: &Matrix) {
        page.push_str(
            "<section id=\"features\" class=\"wide\">\n<h2>Features</h2>\n<p class=\"legend\">\
            <span><b class=\"right\">✓</b> all that ran is right</span>\
            <span><b class=\"wrong\">✗ n</b> wrong</span>\
            <span><b class=\"known\">! n</b> wrong as a known driver bug makes them</span>\
            <span><b class=\"unsupported\">–</b> not supported</span>\
            <span>blank: not run</span></p>\n\
            <table class=\"matrix\">\n<thead><tr><th></th>",
        );
        for (i, column) in self.columns.iter().enumerate() {
            let (name, backend) = (markup(&column.adapter.name), markup(&column.adapter.backend));
            let driver = markup(&column.driver());
            let _ = write!(
                page,
                "<th scope=\"col\"><a href=\"#adapter-{i}\">{name}</a>\
                <small>{backend}</small><small>{driver}</small></th>"
            );
        }
        page.push_str("</tr></thead>\n");
        let mut feature = 0;
        for group in matrix.groups() {
            let (title, span) = (markup(&group[0].group), self.columns.len() + 1);
            let _ = write!(
                page,
                "<tbody>\n<tr class=\"group\"><th scope=\"rowgroup\" colspan=\"{span}\">{title}</th></tr>\n"
            );
            for row in group {
                let _ = write!(page, "<tr><th scope=\"row\">{}</th>", markup(&row.feature));
                for (i, cell) in row.cells.iter().enumerate() {
                    write_cell(page, i, feature, cell);
                }
                page.push_str("</tr>\n");
                feature += 1;
            }
            page.push_str("</tbody>\n");
        }
        page.push_str("</table>\n</section>\n");
    }
}

fn write_total(page: &mut String, index: usize, column: &Column, coverage: (usize, usize)) {
    let totals = &column.totals;
    let line = |class: &str, text: &str| match text {
        "" => String::new(),
        text => format!("<small class=\"{class}\">{}</small>", markup(text)),
    };
    let backend = match column.driver() {
        driver if driver.is_empty() => column.adapter.backend.clone(),
        driver => format!("{} · {driver}", column.adapter.backend),
    };
    let sources = distinct(column, |source| {
        let revision = if source.revision.is_empty() {
            format!("heedful {}", source.heedful)
        } else {
            format!("heedful {} ({})", source.heedful, source.revision)
        };
        let date = source.date.replace('T', " ");
        format!("{} · {} · {} · {revision}", source.host.os, source.host.cpu, date)
    });
    let sources: String = sources.iter().map(|source| line("source", source)).collect();
    let _ = write!(
        page,
        "<tr><th scope=\"row\"><a href=\"#adapter-{index}\">{}</a>{}{sources}</th>\
        <td class=\"verdict\"><span class=\"badge {}\">{}</span></td>",
        markup(&column.adapter.name),
        line("", &backend),
        class(totals),
        markup(&column.verdict())
    );
    for (count, class) in [
        (totals.pass, ""),
        (totals.fail, "wrong"),
        (totals.expected_fail, "known"),
        (totals.unsupported, "unsupported"),
    ] {
        let class = if count == 0 { "zero" } else { class };
        let _ = write!(page, "<td class=\"{class}\">{count}</td>");
    }
    let (ran, features) = coverage;
    let ratio = column.worst_ratio().map_or("–".into(), |ratio| format!("{ratio:.3}"));
    let _ = writeln!(
        page,
        "<td>{ran} of {features}</td><td>{ratio}</td><td>{:.1}</td></tr>",
        column.seconds()
    );
}

fn write_cell(page: &mut String, column: usize, feature: usize, cell: &Totals) {
    let class = if cell.total == 0 { "blank" } else { class(cell) };
    let (symbol, counts) = (cell.symbol(), cell.describe());
    let _ = write!(page, "<td class=\"{class}\" title=\"{counts}\">");
    if cell.total > 0 {
        // How much stands behind the symbol: one row that passed is not three hundred.
        let ran = if cell.ran() > 0 { cell.ran() } else { cell.total };
        let _ = write!(
            page,
            "<a href=\"#adapter-{column}-feature-{feature}\"><b>{symbol}</b><small>{ran}</small></a>"
        );
    }
    page.push_str("</td>");
}

/// The class that colours counts.
fn class(totals: &Totals) -> &'static str {
    match totals {
        Totals { fail: 1.., .. } => "wrong",
        Totals { expected_fail: 1.., .. } => "known",
        Totals { pass: 1.., .. } => "right",
        _ => "unsupported",
    }
}
