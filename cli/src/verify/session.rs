//! One adapter's part of a run: cases one after another, whatever a driver does meanwhile.
//!
//! A device that is lost in a case is that case's failure; the next case gets a new device. A case's rows are
//! reported together, so that a run that was stopped goes on with the case that it was stopped in.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use heedful::verify::cases::{BackwardCase, Case};
use heedful::verify::execute::Placement;
use heedful::verify::expectations::{self, Expectation};
use heedful::verify::golden::{GoldenCase, GoldenSuite, Precision, Support};
use heedful::verify::planned::{Planned, Work};
use heedful::verify::report::{CaseResult, Left, Report};
use heedful::verify::run::Outcome as CaseOutcome;
use heedful::verify::run_backward::Trial as BackwardTrial;
use heedful::verify::trial::Trial;
use heedful::{BackwardPlan, Engine, Error, Path, wgpu};

use super::ahead::{Ahead, LEAD};
use super::journal::{CaseName, Journal};
use super::planned;
use crate::Outcome;
use crate::args::{GridName, VerifyArgs};
use crate::table::Progress;

/// Generated cases between one device and the next: an engine keeps every kernel that it has compiled, on Mesa 26.2
/// 15 MB a case of the full grid, which go with it.
const CASES_OF_A_DEVICE: usize = 500;

/// One adapter with what it has shown so far.
pub(super) struct Session<'a> {
    pub(super) args: &'a VerifyArgs,
    pub(super) adapter: &'a wgpu::Adapter,
    pub(super) engine: Arc<Engine>,
    pub(super) index: usize,
    pub(super) report: &'a mut Report,
    pub(super) journal: &'a mut Journal,
    /// Known driver bugs.
    pub(super) expected: &'a [Expectation],
    /// Set by Ctrl-C.
    pub(super) stop: &'a AtomicBool,
    /// Suite and name of the cases that an earlier run reported.
    pub(super) done: HashSet<(String, String)>,
    /// Whether the run goes on after one that ended in the middle of a case.
    pub(super) after_crash: bool,
    /// The one case to run, by suite and name.
    pub(super) only: Option<(String, String)>,
}

impl Session<'_> {
    /// Whether a case is asked for, is not done, and nobody wants to stop.
    fn wanted(&self, suite: &str, name: &str) -> bool {
        let named = self.args.filter.as_deref().is_none_or(|text| name.contains(text));
        let this = (suite.to_owned(), name.to_owned());
        let asked = self.only.as_ref().is_none_or(|only| *only == this);
        named && asked && !self.stopped() && !self.done.contains(&this)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Runs the grid and the recorded cases that are asked for.
    pub(super) fn everything(&mut self, suites: &[GoldenSuite]) -> Outcome {
        if self.args.grid.is_some() || self.args.cases.is_empty() {
            self.grid(self.args.grid.unwrap_or(GridName::Quick))?;
        }
        suites.iter().try_for_each(|suite| self.suite(suite))
    }

    /// Runs a grid of generated cases: calls, then gradients.
    fn grid(&mut self, name: GridName) -> Outcome {
        let (of, suite) = planned::grid(name);
        let all = planned::all(of, self.args)?;
        let shard = &all[self.args.shard.range(all.len())];
        let wanted: Vec<&Planned> =
            shard.iter().filter(|planned| self.wanted(suite, planned.name())).collect();
        self.in_turns(suite, &wanted, CASES_OF_A_DEVICE)
    }

    /// Runs cases on one device after another, so many on each.
    fn in_turns(&mut self, suite: &str, wanted: &[&Planned], most: usize) -> Outcome {
        let bar = Progress::new(wanted.len(), "verify");
        for (i, cases) in wanted.chunks(most).enumerate() {
            if self.stopped() {
                break;
            }
            if i > 0 {
                self.open_anew()?;
            }
            self.on_one_device(suite, cases, &bar)?;
        }
        Ok(())
    }

    /// Runs cases on the engine that is there.
    fn on_one_device(&mut self, suite: &str, wanted: &[&Planned], bar: &Progress) -> Outcome {
        let engine = Arc::clone(&self.engine);
        let ahead = Ahead::default();
        std::thread::scope(|scope| {
            // Where a driver compiles on the CPU, two cores compile; elsewhere a crash must be the running case's.
            // OpenGL has one context, and wgpu gives up waiting for it after a second.
            let caps = engine.capabilities();
            if caps.device_type == "cpu" && caps.backend != "gl" {
                // Compiling ahead may be what crashed: those cases are now compiled when they run.
                let first = if self.after_crash { LEAD + 1 } else { 0 };
                let (ahead, engine) = (&ahead, &engine);
                scope.spawn(move || ahead.compile(engine, wanted, first));
            }
            let _end = ahead.until_dropped();
            self.all_generated(suite, wanted, &ahead, bar)
        })
    }

    fn all_generated(
        &mut self,
        suite: &str,
        cases: &[&Planned],
        ahead: &Ahead,
        bar: &Progress,
    ) -> Outcome {
        for (i, planned) in cases.iter().enumerate() {
            bar.step(planned.name());
            ahead.reached(i);
            if self.stopped() {
                break;
            }
            let placement = planned.placement;
            match &planned.work {
                Work::Call { case, paths } => {
                    let seed = self.args.seed.unwrap_or(case.seed);
                    self.generated(suite, &Case { seed, ..case.clone() }, paths, placement)?;
                }
                Work::Gradients(case) => {
                    let seed = self.args.seed.unwrap_or(case.seed);
                    self.gradients(suite, &BackwardCase { seed, ..case.clone() }, placement)?;
                }
            }
        }
        Ok(())
    }

    /// Computes the gradients of a case.
    fn gradients(&mut self, suite: &str, case: &BackwardCase, placement: Placement) -> Outcome {
        self.began(suite, &case.name)?;
        let row = match BackwardTrial::new(case) {
            Ok(trial) => {
                let run = |engine: &Engine| trial.run(engine, placement);
                self.row(suite, &case.name, Some(case.seed), case.path, run)?
            }
            // The call has no gradients.
            Err(error) => {
                let reason = error.to_string();
                let row = CaseResult::unsupported(&case.name, suite, self.index, reason);
                CaseResult { seed: Some(case.seed), kernel: case.path.to_string(), ..row }
            }
        };
        self.finish(vec![row])
    }

    fn generated(
        &mut self,
        suite: &str,
        case: &Case,
        paths: &[Path],
        placement: Placement,
    ) -> Outcome {
        self.began(suite, &case.name)?;
        let trial = Trial::new(case, paths)?;
        let mut rows = Vec::new();
        for &path in paths {
            let run = |engine: &Engine| trial.run(engine, path, placement);
            rows.push(self.row(suite, &case.name, Some(case.seed), path, run)?);
        }
        self.finish(rows)
    }

    /// Runs a folder of recorded cases.
    fn suite(&mut self, suite: &GoldenSuite) -> Outcome {
        let bar = Progress::new(suite.cases.len(), "verify");
        let shard = self.args.shard.range(suite.cases.len());
        for (i, case) in suite.cases.iter().enumerate() {
            bar.step(&case.name);
            if shard.contains(&i) && self.wanted(&suite.name, &case.name) {
                self.recorded(suite, case)?;
            }
        }
        Ok(())
    }

    fn recorded(&mut self, suite: &GoldenSuite, case: &GoldenCase) -> Outcome {
        self.began(&suite.name, &case.name)?;
        let loaded = match case.load(Precision::Stored)? {
            Support::Supported(loaded) => loaded,
            Support::Unsupported(reason) => {
                let row = CaseResult::unsupported(&case.name, &suite.name, self.index, reason);
                return self.finish(vec![row]);
            }
        };
        let mut rows = Vec::new();
        for path in planned::paths(&loaded.attention, self.args) {
            let run = |engine: &Engine| Ok((loaded.run(engine, path)?, None));
            rows.push(self.row(&suite.name, &case.name, None, path, run)?);
        }
        if case.has_gradients() {
            rows.extend(self.recorded_gradients(suite, case)?);
        }
        self.finish(rows)
    }

    /// Computes the recorded gradients of a case, those of a call on each path.
    fn recorded_gradients(
        &mut self,
        suite: &GoldenSuite,
        case: &GoldenCase,
    ) -> Outcome<Vec<CaseResult>> {
        let name = format!("gradients {}", case.name);
        let mut rows = Vec::new();
        if let Some(recorded) = case.gradients(Precision::Stored)? {
            for path in BackwardPlan::PATHS.into_iter().filter(|path| self.args.asks_for(*path)) {
                let run = |engine: &Engine| Ok((recorded.run(engine, path)?, None));
                rows.push(self.row(&suite.name, &name, None, path, run)?);
            }
        } else if let Some(recorded) = case.layer_gradients(Precision::Stored)? {
            // The recorded layers write no lse, which the fused paths need.
            if self.args.asks_for(Path::Staged) {
                let run = |engine: &Engine| Ok((recorded.run(engine)?, None));
                rows.push(self.row(&suite.name, &name, None, Path::Staged, run)?);
            }
        } else {
            let reason = "gradients of what is no call and no layer";
            rows.push(CaseResult::unsupported(&name, &suite.name, self.index, reason));
        }
        Ok(rows)
    }

    /// Runs a case on one path. What the device fails in is a failed row; what the request is wrong in
    /// ends the run.
    fn row(
        &mut self,
        suite: &str,
        name: &str,
        seed: Option<u64>,
        path: Path,
        run: impl FnOnce(&Engine) -> Result<(CaseOutcome, Option<String>), Error>,
    ) -> Outcome<CaseResult> {
        let mut row = CaseResult::unsupported(name, suite, self.index, "");
        row.seed = seed;
        if row.end(path, run(&self.engine))? == Left::Doubtful {
            self.open_anew()?;
        }
        Ok(row)
    }

    fn open_anew(&mut self) -> Outcome {
        let matrix = self.args.uses_matrix();
        self.engine = Arc::new(crate::adapters::open(self.adapter, matrix)?);
        Ok(())
    }

    fn began(&mut self, suite: &str, name: &str) -> Outcome {
        let (suite, name) = (suite.to_owned(), name.to_owned());
        self.journal.began(CaseName { adapter: self.index, suite, name })
    }

    /// Reports the rows of a case.
    fn finish(&mut self, mut rows: Vec<CaseResult>) -> Outcome {
        for row in &mut rows {
            expectations::apply(self.expected, &self.report.adapters[self.index], row);
        }
        self.journal.ended(&rows)?;
        rows.into_iter().for_each(|row| self.report.push(row));
        Ok(())
    }
}

#[cfg(test)]
#[path = "../../../tests/common/skip.rs"]
mod skip;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use clap::Parser;
    use heedful::Engine;
    use heedful::verify::cases::{Grid, grid};
    use heedful::verify::report::{Adapter, Report, Status};

    use super::{Journal, Path, Session, planned, skip};
    use crate::args::{Args, Command};

    /// A session of `heedful verify --filter FILTER` on the first adapter, for `work`; skips the test without one.
    fn with_session(test: &str, filter: &str, work: impl FnOnce(&mut Session<'_>)) {
        let adapters = crate::adapters::matching(None).unwrap_or_else(|_| Vec::new());
        let Some(adapter) = adapters.first() else {
            return skip::skipped(test, "no adapter");
        };
        let args = Args::try_parse_from(["heedful", "verify", "--filter", filter]);
        let Some(Command::Verify(args)) = args.expect("arguments").command else {
            panic!("verify")
        };
        let mut report = Report::new("");
        let engine = Engine::with_adapter_blocking(adapter).expect("a device");
        report.adapters.push(Adapter::describe(adapter, engine.capabilities()));
        work(&mut Session {
            args: &args,
            adapter,
            engine: Arc::new(engine),
            index: 0,
            report: &mut report,
            journal: &mut Journal::none(),
            expected: &[],
            stop: &AtomicBool::new(false),
            done: HashSet::new(),
            after_crash: false,
            only: None,
        });
    }

    #[test]
    fn a_device_that_is_lost_is_one_failed_row_and_the_next_case_runs() {
        with_session("a_device_that_is_lost", "1x2x1x8 ", |session| {
            session.engine.device().destroy();
            let mut cases = grid(Grid::Quick).expect("distinct names");
            cases.truncate(2);
            for case in &cases {
                let placement = heedful::verify::execute::Placement::Aligned;
                session
                    .generated("quick", case, &[Path::Fused], placement)
                    .unwrap_or_else(|_| panic!("goes on"));
            }
            let rows = &session.report.cases;
            let failed: Vec<_> = rows.iter().filter(|x| x.status == Status::Fail).collect();
            assert_eq!(failed.len(), 1, "{rows:?}");
            assert_eq!(failed[0].name, cases[0].name);
            assert!(rows.iter().any(|x| x.name == cases[1].name && x.status == Status::Pass));
        });
    }

    /// Kernels go with their device, and every case is run all the same.
    #[test]
    fn many_cases_are_run_on_one_device_after_another() {
        with_session("many_cases", "", |session| {
            let all = planned::all(Grid::Slots, session.args).unwrap_or_else(|_| panic!("a grid"));
            let cases: Vec<_> = all.iter().take(3).collect();
            let first = Arc::clone(&session.engine);
            session.in_turns("slots", &cases, 2).unwrap_or_else(|_| panic!("all run"));
            assert!(!Arc::ptr_eq(&first, &session.engine), "the third is on another device");
            let named = |name| session.report.cases.iter().any(|row| row.name == name);
            assert!(cases.iter().all(|case| named(case.name())), "{:?}", session.report.cases);
            assert!(session.report.cases.iter().all(|row| row.status != Status::Fail));
        });
    }
}
