//! Verification: the cases of a grid, one after another, into a report.

use std::collections::VecDeque;

use heedful::verify::cases::Grid;
use heedful::verify::execute::Placement;
use heedful::verify::expectations::{self, KNOWN};
use heedful::verify::planned::{Planned, Work};
use heedful::verify::report::{Adapter, CaseResult, Host, Left, Report};
use heedful::verify::run_backward::Trial as BackwardTrial;
use heedful::verify::trial::Trial;
use heedful::{Engine, Error, Path, Result};

/// Why a path was left out.
const LARGE_TILES: &str =
    "not tried: on a CPU fused-tile, the slowest to compile, is tried on every fourth call";

/// A grid and what its cases have shown so far.
#[derive(Debug)]
pub(crate) struct Cases {
    suite: &'static str,
    planned: Vec<Planned>,
    report: Report,
    fewer_tiles: bool,
}

impl Cases {
    /// A report of nothing yet.
    ///
    /// # Errors
    /// Invalid argument for a grid of another name.
    pub(crate) fn new(grid: &str, adapter: Adapter, host: Host) -> Result<Self> {
        let (of, suite) = match grid {
            "slots" => (Grid::Slots, "slots"),
            "quick" => (Grid::Quick, "quick"),
            other => return Err(Error::invalid("grid", other, "slots or quick")),
        };
        let planned = Planned::all(of, false)?;
        // Where a CPU compiles shaders and runs them, kernels of large tiles take most of the time and serve last.
        let fewer_tiles = adapter.kind == "cpu";
        let mut report = Report::new(option_env!("HEEDFUL_REVISION").unwrap_or_default());
        report.host = host;
        report.adapters.push(adapter);
        Ok(Self { suite, planned, report, fewer_tiles })
    }

    /// The names of its cases.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.planned.iter().map(Planned::name).collect()
    }

    /// The report so far.
    pub(crate) fn report(&self) -> &Report {
        &self.report
    }

    /// A case of this place, to be run while nothing holds on to the report.
    ///
    /// # Errors
    /// Invalid argument where there is none, and a case that is wrong in itself.
    pub(crate) fn case(&self, place: usize) -> Result<Running> {
        let cases = self.planned.len();
        let wrong = || Error::invalid("case", place, format!("below {cases}"));
        let planned = self.planned.get(place).ok_or_else(wrong)?;
        let left_out = self.fewer_tiles && !place.is_multiple_of(4);
        Running::new(planned, self.suite, left_out.then_some(Path::FusedTile))
    }

    /// Adds a row.
    pub(crate) fn add(&mut self, row: &CaseResult) {
        self.report.push(row.clone());
    }
}

/// A case that runs, path after path: after a path that a device failed in, the next gets another device.
pub(crate) struct Running {
    trial: Either,
    placement: Placement,
    /// Those that have no row yet.
    paths: VecDeque<Path>,
    left_out: Option<Path>,
    /// A row that says nothing yet.
    blank: CaseResult,
}

/// A case with its data and what they should yield.
enum Either {
    Call(Box<Trial>),
    Gradients(Box<BackwardTrial>),
    /// A call that has no gradients, and why.
    NoGradients(String),
}

impl Running {
    fn new(planned: &Planned, suite: &str, left_out: Option<Path>) -> Result<Self> {
        let (seed, paths, trial) = match &planned.work {
            Work::Call { case, paths } => {
                let trial = Either::Call(Box::new(Trial::new(case, paths)?));
                (case.seed, paths.iter().copied().collect(), trial)
            }
            Work::Gradients(case) => {
                let trial = match BackwardTrial::new(case) {
                    Ok(trial) => Either::Gradients(Box::new(trial)),
                    Err(error) => Either::NoGradients(error.to_string()),
                };
                (case.seed, VecDeque::from([case.path]), trial)
            }
        };
        let left_out = left_out.filter(|_| matches!(trial, Either::Call(_)));
        let blank = CaseResult::unsupported(planned.name(), suite, 0, "");
        let blank = CaseResult { seed: Some(seed), ..blank };
        Ok(Self { trial, placement: planned.placement, paths, left_out, blank })
    }

    /// Whether a path has no row yet.
    pub(crate) fn more(&self) -> bool {
        !self.paths.is_empty()
    }

    /// The next path's row, and in which state the device is left: one that has failed in something is not to be
    /// asked again.
    ///
    /// # Errors
    /// Invalid argument: a case that is wrong in itself, or one that has all its rows.
    pub(crate) async fn row(
        &mut self,
        engine: &Engine,
        adapter: &Adapter,
    ) -> Result<(CaseResult, Left)> {
        let path = self.paths.pop_front();
        let path = path.ok_or_else(|| Error::invalid("path", "none", "one that has no row yet"))?;
        let mut row = self.blank.clone();
        if self.left_out == Some(path) {
            return Ok((without(row, path, LARGE_TILES), Left::Sound));
        }
        let left = match &self.trial {
            Either::Call(trial) => {
                row.end(path, trial.run_async(engine, path, self.placement).await)?
            }
            Either::Gradients(trial) => {
                row.end(path, trial.run_async(engine, self.placement).await)?
            }
            Either::NoGradients(why) => return Ok((without(row, path, why), Left::Sound)),
        };
        expectations::apply(KNOWN, adapter, &mut row);
        Ok((row, left))
    }

    /// Rows for the paths that have none, which say why they were not run.
    pub(crate) fn not_run(&mut self, why: &str) -> Vec<CaseResult> {
        let why = format!("not run: {why}");
        self.paths.drain(..).map(|path| without(self.blank.clone(), path, &why)).collect()
    }
}

/// A row of a path that did not run.
fn without(row: CaseResult, path: Path, why: &str) -> CaseResult {
    CaseResult { kernel: path.to_string(), reason: why.to_owned(), ..row }
}

#[cfg(test)]
#[path = "../../tests/common/skip.rs"]
mod skip;

#[cfg(test)]
mod tests {
    use heedful::verify::report::{Adapter, CaseResult, Host, Left, Status};
    use heedful::{Engine, Error, Result};

    use super::{Cases, LARGE_TILES, Running, skip};

    fn cases_of(adapter: Adapter) -> Result<Cases> {
        let host = Host { os: String::new(), cpu: String::new() };
        Cases::new("slots", adapter, host)
    }

    /// The first adapter; without one the test says that it is skipped.
    fn adapter(test: &str) -> Option<heedful::wgpu::Adapter> {
        let found = pollster::block_on(Engine::adapters()).into_iter().next();
        if found.is_none() {
            skip::skipped(test, "no adapter");
        }
        found
    }

    #[test]
    fn a_lost_device_is_one_failed_row_and_the_case_goes_on_with_the_next() -> Result<()> {
        let Some(adapter) = adapter("a_lost_device_is_one_failed_row") else { return Ok(()) };
        let lost = Engine::with_adapter_blocking(&adapter)?;
        let sound = Engine::with_adapter_blocking(&adapter)?;
        let described = Adapter::describe(&adapter, sound.capabilities());
        let cases = cases_of(described.clone())?;
        let on =
            |running: &mut Running, engine| pollster::block_on(running.row(engine, &described));
        let rest = |running: &mut Running| {
            let mut rows: Vec<CaseResult> = Vec::new();
            while running.more() {
                let (row, left) = on(running, &sound)?;
                assert_eq!(left, Left::Sound, "{}", row.reason);
                rows.push(row);
            }
            Ok::<_, Error>(rows)
        };
        // A case that more than one path serves.
        let served = |place: &usize| {
            let rows = cases.case(*place).and_then(|mut case| rest(&mut case)).unwrap_or_default();
            rows.iter().filter(|row| row.status == Status::Pass).count() > 1
        };
        let place = (0..cases.planned.len()).find(served).unwrap_or_default();
        let mut running = cases.case(place)?;
        lost.device().destroy();
        // What no device would serve says nothing of one that is lost.
        let (row, left) = loop {
            let (row, left) = on(&mut running, &lost)?;
            if row.status != Status::Unsupported {
                break (row, left);
            }
        };
        assert_eq!((row.status, left), (Status::Fail, Left::Doubtful), "{}", row.reason);
        let rows = rest(&mut running)?;
        assert!(rows.iter().any(|row| row.status == Status::Pass), "{rows:?}");
        assert!(rows.iter().all(|row| row.status != Status::Fail), "{rows:?}");
        Ok(())
    }

    #[test]
    fn paths_that_were_not_run_have_rows_that_say_so() -> Result<()> {
        let Some(adapter) = adapter("paths_that_were_not_run") else { return Ok(()) };
        let engine = Engine::with_adapter_blocking(&adapter)?;
        let mut described = Adapter::describe(&adapter, engine.capabilities());
        described.kind = "cpu".into();
        let cases = cases_of(described.clone())?;
        let paths = cases.case(0)?.paths.len();
        let rows = cases.case(0)?.not_run("no device");
        assert_eq!(rows.len(), paths);
        assert!(rows.iter().all(|row| row.reason == "not run: no device"));
        let mut running = cases.case(1)?;
        let mut left_out = 0;
        while running.more() {
            let (row, _) = pollster::block_on(running.row(&engine, &described))?;
            left_out += usize::from(row.kernel == "fused-tile" && row.reason == LARGE_TILES);
        }
        assert_eq!(left_out, 1);
        assert!(cases.case(cases.names().len()).is_err());
        Ok(())
    }
}
