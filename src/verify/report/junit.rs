//! JUnit's XML, which continuous integration reads.

use std::fmt::Write;

use crate::verify::report::escape::markup;
use crate::verify::report::{CaseResult, Column, Merged, Status, Totals};

impl Merged {
    /// Test results in JUnit's XML: a suite for each adapter and suite, a case for each row, named by its
    /// case, its class the kernel. Rows that are not supported, and failures that are known, are
    /// skipped with their reason.
    pub fn to_junit(&self) -> String {
        let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        let seconds = self.columns.iter().map(Column::seconds).sum();
        let counts = counts(&self.totals, seconds);
        let _ = writeln!(xml, "<testsuites name=\"heedful verify\" {counts}>");
        for column in &self.columns {
            let mut suites: Vec<&str> = Vec::new();
            for case in &column.cases {
                if !suites.contains(&case.suite.as_str()) {
                    suites.push(&case.suite);
                }
            }
            suites.into_iter().for_each(|suite| write_suite(&mut xml, column, suite));
        }
        xml.push_str("</testsuites>\n");
        xml
    }
}

fn write_suite(xml: &mut String, column: &Column, suite: &str) {
    let rows = || column.cases.iter().filter(|case| case.suite == suite);
    let mut totals = Totals::default();
    rows().for_each(|case| totals.count(case.status));
    let counts = counts(&totals, rows().filter_map(|case| case.ms).sum::<f64>() / 1e3);
    let name = markup(&format!("{} {suite}", column.label()));
    // JUnit's time of day has no zone.
    let date = column.sources.first().map_or("", |source| source.date.trim_end_matches('Z'));
    let _ = writeln!(xml, "<testsuite name=\"{name}\" {counts} timestamp=\"{}\">", markup(date));
    let properties = [("driver", column.driver()), ("suite", suite.to_owned())];
    let hosts = column.sources.iter().map(|source| {
        let host = &source.host;
        ("host", format!("{}, {}, revision {:?}", host.os, host.cpu, source.revision))
    });
    xml.push_str("<properties>\n");
    for (name, value) in properties.into_iter().chain(hosts) {
        let _ = writeln!(xml, "<property name=\"{name}\" value=\"{}\"/>", markup(&value));
    }
    xml.push_str("</properties>\n");
    rows().for_each(|case| write_case(xml, case));
    xml.push_str("</testsuite>\n");
}

fn counts(totals: &Totals, seconds: f64) -> String {
    let skipped = totals.unsupported + totals.expected_fail;
    let (total, fail) = (totals.total, totals.fail);
    format!(
        "tests=\"{total}\" failures=\"{fail}\" errors=\"0\" skipped=\"{skipped}\" time=\"{seconds:.6}\""
    )
}

fn write_case(xml: &mut String, case: &CaseResult) {
    let (name, kernel, reason) = (markup(&case.name), markup(&case.kernel), markup(&case.reason));
    let seconds = case.ms.unwrap_or_default() / 1e3;
    let _ = write!(xml, "<testcase name=\"{name}\" classname=\"{kernel}\" time=\"{seconds:.6}\"");
    let _ = match case.status {
        Status::Pass => writeln!(xml, "/>"),
        Status::Fail => {
            let seed = case.seed.map_or(String::new(), |seed| format!("\nseed {seed}"));
            writeln!(xml, "><failure message=\"{reason}\">{reason}{seed}</failure></testcase>")
        }
        Status::ExpectedFail => {
            writeln!(xml, "><skipped message=\"fails as expected: {reason}\"/></testcase>")
        }
        Status::Unsupported => writeln!(xml, "><skipped message=\"{reason}\"/></testcase>"),
    };
}
