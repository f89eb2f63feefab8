//! Verification: the cases of a grid, one after another, into a report.

use heedful::verify::cases::{BackwardCase, Case, Grid};
use heedful::verify::execute::Placement;
use heedful::verify::expectations::{self, KNOWN};
use heedful::verify::planned::{Planned, Work};
use heedful::verify::report::{Adapter, CaseResult, Host, Left, Report};
use heedful::verify::run_backward::Trial as BackwardTrial;
use heedful::verify::trial::Trial;
use heedful::{Engine, Error, Path, Result};

/// A grid and what its cases have shown so far.
#[derive(Debug)]
pub struct Check {
    suite: &'static str,
    cases: Vec<Planned>,
    report: Report,
}

impl Check {
    /// A report of nothing yet.
    ///
    /// # Errors
    /// Invalid argument for a grid of another name.
    pub fn new(grid: &str, adapter: Adapter, host: Host) -> Result<Self> {
        let (of, suite) = match grid {
            "slots" => (Grid::Slots, "slots"),
            "quick" => (Grid::Quick, "quick"),
            other => return Err(Error::invalid("grid", other, "slots or quick")),
        };
        let mut cases = Planned::all(of, false)?;
        if adapter.kind == "cpu" {
            fewer_tiles(&mut cases);
        }
        let mut report = Report::new(option_env!("HEEDFUL_REVISION").unwrap_or_default());
        report.host = host;
        report.adapters.push(adapter);
        Ok(Self { suite, cases, report })
    }

    /// The names of its cases.
    pub fn names(&self) -> Vec<&str> {
        self.cases.iter().map(Planned::name).collect()
    }

    /// The report so far.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// A case of this place, to be run while nothing holds on to the report.
    ///
    /// # Errors
    /// Invalid argument where there is none.
    pub fn case(&self, place: usize) -> Result<Running> {
        let cases = self.cases.len();
        let planned = self.cases.get(place).cloned();
        let planned =
            planned.ok_or_else(|| Error::invalid("case", place, format!("below {cases}")))?;
        Ok(Running { planned, suite: self.suite })
    }

    /// Adds a case's rows.
    pub fn add(&mut self, rows: &[CaseResult]) {
        for row in rows {
            self.report.push(row.clone());
        }
    }
}

/// Where a CPU compiles shaders and runs them, kernels of large tiles take most of the time and serve last: they are
/// tried on every fourth call.
fn fewer_tiles(cases: &mut [Planned]) {
    for (i, planned) in cases.iter_mut().enumerate() {
        if let Work::Call { paths, .. } = &mut planned.work {
            paths.retain(|path| *path != Path::FusedTile || i % 4 == 0);
        }
    }
}

/// A case that runs.
pub struct Running {
    planned: Planned,
    suite: &'static str,
}

impl Running {
    /// Its rows, one for each path; and in which state the device is left. A device that has failed in something is
    /// not asked again.
    ///
    /// # Errors
    /// Invalid argument: a case that is wrong in itself.
    pub async fn rows(
        &self,
        engine: &Engine,
        adapter: &Adapter,
    ) -> Result<(Vec<CaseResult>, Left)> {
        let placement = self.planned.placement;
        let (mut rows, left) = match &self.planned.work {
            Work::Call { case, paths } => self.call(engine, case, paths, placement).await?,
            Work::Gradients(case) => self.gradients(engine, case, placement).await?,
        };
        rows.iter_mut().for_each(|row| expectations::apply(KNOWN, adapter, row));
        Ok((rows, left))
    }

    async fn call(
        &self,
        engine: &Engine,
        case: &Case,
        paths: &[Path],
        placement: Placement,
    ) -> Result<(Vec<CaseResult>, Left)> {
        let trial = Trial::new(case, paths)?;
        let mut rows = Vec::new();
        for &path in paths {
            let mut row = self.row(&case.name, case.seed);
            let left = row.end(path, trial.run_async(engine, path, placement).await)?;
            rows.push(row);
            if left == Left::Doubtful {
                return Ok((rows, left));
            }
        }
        Ok((rows, Left::Sound))
    }

    async fn gradients(
        &self,
        engine: &Engine,
        case: &BackwardCase,
        placement: Placement,
    ) -> Result<(Vec<CaseResult>, Left)> {
        let mut row = self.row(&case.name, case.seed);
        let left = match BackwardTrial::new(case) {
            Ok(trial) => row.end(case.path, trial.run_async(engine, placement).await)?,
            // The call has no gradients.
            Err(error) => {
                row.kernel = case.path.to_string();
                row.reason = error.to_string();
                Left::Sound
            }
        };
        Ok((vec![row], left))
    }

    fn row(&self, name: &str, seed: u64) -> CaseResult {
        CaseResult { seed: Some(seed), ..CaseResult::unsupported(name, self.suite, 0, "") }
    }
}
