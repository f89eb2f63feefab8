//! Files that results are written to: the format by the file's name, the folder checked before the work.

use std::path::{Path, PathBuf};

use heedful::Error;
use heedful::verify::report::Report;

use crate::Outcome;

/// How a report is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Junit,
    Markdown,
    Html,
}

impl Format {
    /// By the file's extension; JSON for any other, and for standard output.
    fn of(path: &Path) -> Self {
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        match extension.as_str() {
            "xml" => Self::Junit,
            "md" => Self::Markdown,
            "html" | "htm" => Self::Html,
            _ => Self::Json,
        }
    }
}

/// Whether a path is standard output.
pub(crate) fn is_stdout(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Checks, before any work, that files can be written in the folders they name, and that at most one is
/// standard output.
///
/// # Errors
/// Invalid argument that names the option and the file.
pub(crate) fn check<'a>(
    files: impl IntoIterator<Item = (&'a str, &'a PathBuf)>,
) -> Result<(), Error> {
    let mut stdout = None;
    for (option, file) in files {
        let argument = || format!("{option} {}", file.display());
        if is_stdout(file) {
            if let Some(other) = stdout.replace(option) {
                let found = format!("standard output, as {other}");
                return Err(Error::invalid(argument(), found, "one output there"));
            }
            continue;
        }
        if file.is_dir() {
            return Err(Error::invalid(argument(), "a folder", "a file to write"));
        }
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
            let found = format!("no folder {}", folder.display());
            return Err(Error::invalid(argument(), found, "a file in a folder that exists"));
        }
    }
    Ok(())
}

/// Writes a report in the format that the file's name asks for.
///
/// # Errors
/// Invalid argument that names the file.
pub(crate) fn write(report: &Report, path: &Path) -> Outcome {
    let text = match Format::of(path) {
        Format::Json => report.to_json()?,
        Format::Junit => report.to_junit(),
        Format::Markdown => report.to_markdown(),
        Format::Html => report.to_html()?,
    };
    write_text(path, &text)
}

/// Writes a text and a line ending to a file, or to standard output for `-`.
///
/// # Errors
/// Invalid argument that names the file.
pub(crate) fn write_text(path: &Path, text: &str) -> Outcome {
    let text = text.trim_end_matches('\n');
    if is_stdout(path) {
        println!("{text}");
        return Ok(());
    }
    std::fs::write(path, format!("{text}\n"))
        .map_err(|e| Error::invalid(path.display().to_string(), e, "a file to write"))?;
    Ok(())
}
