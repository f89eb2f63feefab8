//! The journal of a run: what its cases showed, line by line as they end, beside the first report that is JSON.
//!
//! The report itself is written whole when the run ends; until then an older one stays. Whatever ends the process
//! meanwhile, the journal has every case that ended, and `--resume` goes on from there; only a power cut may take the
//! last seconds. A case that had begun is no failure yet: a kill or a full disk may have ended the process, so it is
//! tried again, [alone](super::alone).
//!
//! The journal is locked by the process that writes it, and holds that process's id: a second run of the same report
//! is refused. The lock ends with its process.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use heedful::Error;
use heedful::verify::report::{Adapter, CaseResult, Report, Totals};
use serde::{Deserialize, Serialize};

use crate::Outcome;
use crate::outputs::{behind_links, beside};

/// Time between two requests that the disk itself holds the journal.
const SYNCED: Duration = Duration::from_secs(10);

/// A case on an adapter, by its index in the report.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct CaseName {
    pub(super) adapter: usize,
    pub(super) suite: String,
    pub(super) name: String,
}

/// One line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    /// Who writes from here on.
    Process(u32),
    /// The report but for its rows.
    Report(Box<Report>),
    /// One more adapter.
    Adapter(Adapter),
    Began(CaseName),
    /// The rows of the case that began last, or of an earlier run.
    Ended(Vec<CaseResult>),
}

/// What an earlier run left.
#[derive(Default)]
pub(super) struct Earlier {
    pub(super) report: Option<Report>,
    /// The case that had begun when its process ended.
    pub(super) running: Option<CaseName>,
}

/// An open journal; one of a run without a JSON report holds nothing.
pub(super) struct Journal(Option<Open>);

struct Open {
    file: File,
    path: PathBuf,
    /// Length up to where the last case ended.
    whole: u64,
    length: u64,
    /// Whether it holds a case.
    any: bool,
    synced: Instant,
}

impl Journal {
    /// For runs that nothing is kept of.
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// Begins the journal of the first of `reports` that is JSON in a file, or goes on with it.
    ///
    /// # Errors
    /// Invalid argument where another process writes it, there is no such report to resume, or what is there
    /// cannot be read.
    pub(super) fn open(reports: &[PathBuf], resume: bool) -> Outcome<(Self, Earlier)> {
        let json = |path: &&PathBuf| path.extension().is_some_and(|x| x == "json");
        let Some(report) = reports.iter().find(json) else {
            if resume {
                let wanted = "--report FILE.json, the report to go on with";
                return Err(Error::invalid("--resume", "no report", wanted).into());
            }
            return Ok((Self(None), Earlier::default()));
        };
        let place = behind_links(report).map_err(|e| refused(report, &e))?;
        let path = beside(&place, ".journal");
        let file = locked(&path, report)?;
        let mut open = Open { file, path, whole: 0, length: 0, any: false, synced: Instant::now() };
        let mut earlier = Earlier::default();
        if resume {
            earlier = open.read()?;
            if earlier.report.is_none() && report.exists() {
                earlier.report = Some(Report::read(report)?);
            }
        }
        open.begin(&earlier)?;
        Ok((Self(Some(open)), earlier))
    }

    /// Notes where the rows of a new report come from.
    pub(super) fn report(&mut self, report: &Report) -> Outcome {
        let head = Report { cases: Vec::new(), totals: Totals::default(), ..report.clone() };
        self.whole(&Line::Report(Box::new(head)))
    }

    /// Notes an adapter that the report has not had yet.
    pub(super) fn adapter(&mut self, adapter: &Adapter) -> Outcome {
        self.whole(&Line::Adapter(adapter.clone()))
    }

    /// Notes the case that begins.
    pub(super) fn began(&mut self, case: CaseName) -> Outcome {
        self.0.as_mut().map_or(Ok(()), |open| open.append(&Line::Began(case)))
    }

    /// Notes its rows.
    pub(super) fn ended(&mut self, rows: &[CaseResult]) -> Outcome {
        self.whole(&Line::Ended(rows.to_vec()))?;
        self.0.iter_mut().for_each(|open| open.any = true);
        Ok(())
    }

    fn whole(&mut self, line: &Line) -> Outcome {
        let Some(open) = &mut self.0 else { return Ok(()) };
        open.append(line)?;
        open.whole = open.length;
        Ok(())
    }

    /// Removes the journal: the reports are written.
    pub(super) fn finish(mut self) {
        if let Some(open) = self.0.take() {
            // Where it cannot be removed, a later --resume finds every case done.
            let _ = std::fs::remove_file(&open.path);
        }
    }
}

impl Drop for Journal {
    /// A run that ends of its own will, with an error for example, leaves no case as running; this needs no room on
    /// a full disk. A panic may be the case's.
    fn drop(&mut self) {
        let (Some(open), false) = (&self.0, std::thread::panicking()) else { return };
        // Where this fails, the worst is a case that is tried alone when the run is resumed.
        let _ =
            if open.any { open.file.set_len(open.whole) } else { std::fs::remove_file(&open.path) };
    }
}

impl Open {
    /// Reads what is there, up to a line that was cut short.
    fn read(&mut self) -> Outcome<Earlier> {
        let mut bytes = Vec::new();
        self.file.read_to_end(&mut bytes).map_err(|e| refused(&self.path, &e))?;
        let mut earlier = Earlier::default();
        for text in bytes.split_inclusive(|byte| *byte == b'\n').filter(|x| x.ends_with(b"\n")) {
            let Ok(line) = serde_json::from_slice::<Line>(text) else { break };
            if !earlier.take(line) {
                let found = String::from_utf8_lossy(text);
                return Err(Error::invalid(
                    self.path.display().to_string(),
                    found,
                    "a journal of `verify`",
                )
                .into());
            }
            self.length += text.len() as u64;
        }
        self.whole = self.length;
        Ok(earlier)
    }

    /// Cuts off what was not read, and notes who writes; a journal that is new begins with what a report had.
    fn begin(&mut self, earlier: &Earlier) -> Outcome {
        let kept = self.length > 0;
        let at = self.file.set_len(self.length).and_then(|()| self.file.seek(SeekFrom::End(0)));
        at.map_err(|e| refused(&self.path, &e))?;
        self.append(&Line::Process(std::process::id()))?;
        if let (Some(report), false) = (&earlier.report, kept) {
            let head = Report { cases: Vec::new(), totals: Totals::default(), ..report.clone() };
            self.append(&Line::Report(Box::new(head)))?;
            self.append(&Line::Ended(report.cases.clone()))?;
        }
        self.whole = self.length;
        self.any = earlier.report.is_some();
        Ok(())
    }

    fn append(&mut self, line: &Line) -> Outcome {
        let mut text = serde_json::to_vec(line)
            .map_err(|e| Error::internal("writing the journal", e.to_string()))?;
        text.push(b'\n');
        self.file.write_all(&text).map_err(|e| refused(&self.path, &e))?;
        self.length += text.len() as u64;
        if self.synced.elapsed() >= SYNCED {
            self.file.sync_data().map_err(|e| refused(&self.path, &e))?;
            self.synced = Instant::now();
        }
        Ok(())
    }
}

impl Earlier {
    /// Takes a line over; `false` where it does not follow from those before.
    fn take(&mut self, line: Line) -> bool {
        match (line, &mut self.report) {
            (Line::Process(_), _) => {}
            (Line::Report(head), report @ None) => *report = Some(*head),
            (Line::Adapter(adapter), Some(report)) => report.adapters.push(adapter),
            (Line::Began(case), Some(report)) if case.adapter < report.adapters.len() => {
                self.running = Some(case);
            }
            (Line::Ended(rows), Some(report))
                if rows.iter().all(|row| row.adapter < report.adapters.len()) =>
            {
                rows.into_iter().for_each(|row| report.push(row));
                self.running = None;
            }
            _ => return false,
        }
        true
    }
}

/// The journal's file, which no other process writes.
fn locked(path: &Path, report: &Path) -> Outcome<File> {
    loop {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = file.map_err(|e| refused(path, &e))?;
        if let Err(fs4::TryLockError::WouldBlock) = fs4::FileExt::try_lock(&file) {
            let found = format!("a run of verify that writes it, {}", owner(path));
            let argument = format!("--report {}", report.display());
            return Err(Error::invalid(argument, found, "its end, or another report").into());
        }
        // Where locks do not exist nothing is refused. Between opening and locking, its writer may have removed it.
        if is_at(&file, path) {
            return Ok(file);
        }
    }
}

/// The process that writes a journal.
fn owner(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    let lines = bytes.split(|byte| *byte == b'\n').rev();
    let mut ids = lines.filter_map(|text| match serde_json::from_slice(text) {
        Ok(Line::Process(id)) => Some(id),
        _ => None,
    });
    ids.next().map_or("another process".into(), |id| format!("process {id}"))
}

#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let place = |x: std::fs::Metadata| (x.dev(), x.ino());
    let (open, named) = (file.metadata().map(place), std::fs::metadata(path).map(place));
    matches!((open, named), (Ok(open), Ok(named)) if open == named)
}

#[cfg(not(unix))]
fn is_at(_: &File, path: &Path) -> bool {
    path.exists()
}

fn refused(path: &Path, error: &std::io::Error) -> Error {
    Error::invalid(path.display().to_string(), error, "a file to write")
}
