//! Files that results are written to: the format by the file's name, the folder checked before the work, and
//! an old file there until the new one is whole. Every command writes every file by [`put`].

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write as _};
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
    Ok(put(path, format!("{text}\n").as_bytes())?)
}

/// Puts a whole file in place: written beside it under another name, then renamed, so that whatever goes wrong
/// meanwhile (a full disk, a kill) leaves the old file as it was.
///
/// # Errors
/// Invalid argument that names the file.
pub(crate) fn put(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    replace(path, bytes)
        .map_err(|e| Error::invalid(path.display().to_string(), e, "a file to write"))
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let old = match std::fs::metadata(path) {
        // Pipes and devices keep nothing, and a rename would put a file in their place.
        Ok(old) if !old.is_file() => return std::fs::write(path, bytes),
        Ok(old) => Some(old.permissions()),
        Err(_) => None,
    };
    let place = behind_links(path)?;
    if old.is_some() {
        // Opening asks whether the file may be written; a rename would not.
        OpenOptions::new().write(true).open(&place)?;
    }
    let part = beside(&place, &format!(".partial-{}", std::process::id()));
    let written = write_new(&part, bytes, old).and_then(|()| std::fs::rename(&part, &place));
    if written.is_err() {
        // Where it was never made there is nothing to remove.
        let _ = std::fs::remove_file(&part);
    }
    written
}

fn write_new(path: &Path, bytes: &[u8], permissions: Option<Permissions>) -> io::Result<()> {
    let mut file = File::create(path)?;
    if let Some(permissions) = permissions {
        file.set_permissions(permissions)?;
    }
    file.write_all(bytes)?;
    match file.sync_all() {
        // Some file systems cannot be asked; those that can say here that they are full.
        Err(e) if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
            Ok(())
        }
        synced => synced,
    }
}

/// The file that a path stands for: symbolic links stay, what they point to is replaced.
pub(crate) fn behind_links(path: &Path) -> io::Result<PathBuf> {
    let mut place = path.to_owned();
    for _ in 0..40 {
        let Ok(to) = std::fs::read_link(&place) else { return Ok(place) };
        place = place.parent().map_or(to.clone(), |folder| folder.join(to));
    }
    Err(io::Error::other("symbolic links without an end"))
}

/// A file of the same name with `ending` after it, in the same folder.
pub(crate) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}
