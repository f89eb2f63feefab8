//! stub
use crate::Outcome;
use heedful::verify::report::Report;
use std::path::Path;
pub(crate) fn write(report: &Report, path: &Path) -> Outcome {
    crate::table::write_json(path, &report.to_json()?)
}
