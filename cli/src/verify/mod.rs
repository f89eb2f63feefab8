//! `heedful verify`: case grids and recorded cases on one adapter or all, on every path.

mod ahead;
mod alone;
mod journal;
mod planned;
mod session;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use heedful::verify::expectations::{self, KNOWN};
use heedful::verify::golden::GoldenSuite;
use heedful::verify::report::{Adapter, Report, Status, Totals};
use heedful::{Error, Path};

use crate::args::VerifyArgs;
use crate::stop::on_ctrl_c;
use crate::table::table;
use crate::{Failure, Outcome, adapters, outputs};
use alone::{Alone, BEGUN, try_alone};
use journal::Journal;
use session::Session;

/// Runs everything asked for and reports it.
pub(crate) fn verify(args: &VerifyArgs) -> Outcome {
    if args.path.iter().any(|name| matches!(name.path(), None | Some(Path::Auto))) {
        return Err(Error::invalid("--path", "auto or reference", "paths of the GPU").into());
    }
    let suites: Vec<GoldenSuite> =
        args.cases.iter().map(|folder| GoldenSuite::open(folder)).collect::<Result<_, _>>()?;
    if let Some(told) = &args.alone {
        return run_alone(args, &suites, told);
    }
    outputs::check(args.report.iter().map(|file| ("--report", file)))?;
    let chosen = chosen(args)?;
    let mut expected = KNOWN.to_vec();
    for path in &args.expect {
        expected.extend(expectations::read(path)?);
    }
    let stop = on_ctrl_c("this case")?;
    let (mut journal, earlier) = Journal::open(&args.report, args.resume)?;
    let resumed = earlier.report.is_some();
    let mut report = earlier.report.unwrap_or_else(|| Report::new(env!("HEEDFUL_REVISION")));
    if !resumed {
        journal.report(&report)?;
    }
    if let Some(case) = &earlier.running {
        let adapter = &report.adapters[case.adapter];
        let mut rows = try_alone(case, adapter, &stop)?;
        rows.iter_mut().for_each(|row| expectations::apply(&expected, adapter, row));
        journal.ended(&rows)?;
        rows.into_iter().for_each(|row| report.push(row));
    }
    for adapter in &chosen {
        let engine = Arc::new(adapters::open(adapter, args.uses_matrix())?);
        let known = report.adapters.len();
        let index = place(&mut report, Adapter::describe(adapter, engine.capabilities()));
        if index == known {
            journal.adapter(&report.adapters[index])?;
        }
        let here = report.cases.iter().filter(|case| case.adapter == index);
        let done = here.map(|case| (case.suite.clone(), case.name.clone())).collect();
        let (report, journal, stop) = (&mut report, &mut journal, &*stop);
        let (expected, after_crash) = (expected.as_slice(), earlier.running.is_some());
        let mut session = Session {
            args,
            adapter,
            engine,
            index,
            report,
            journal,
            expected,
            stop,
            done,
            after_crash,
            only: None,
        };
        session.everything(&suites)?;
    }
    end(args, &report, journal, stop.load(Ordering::Relaxed))
}

/// The adapters that are asked for.
fn chosen(args: &VerifyArgs) -> Outcome<Vec<heedful::wgpu::Adapter>> {
    let mut chosen = adapters::matching(args.adapter.as_deref())?;
    if chosen.is_empty() {
        return Err(Failure::NoAdapter(adapters::INSTALL.into()));
    }
    if !args.all_adapters {
        chosen.truncate(1);
    }
    Ok(chosen)
}

/// Writes the reports, and says how it went.
fn end(args: &VerifyArgs, report: &Report, journal: Journal, stopped: bool) -> Outcome {
    if args.report.iter().all(|path| !outputs::is_stdout(path)) {
        print(report);
    }
    for path in &args.report {
        outputs::write(report, path)?;
    }
    journal.finish();
    if stopped {
        let more = if args.report.is_empty() { "" } else { "; --resume goes on from there" };
        let rows = report.totals.total;
        return Err(Failure::Wrong(format!("stopped by Ctrl-C after {rows} results{more}")));
    }
    verdict(&report.totals)
}

/// Runs the one case that another process of this program asks for: says that it begins, and prints its rows as JSON on
/// one line.
fn run_alone(args: &VerifyArgs, suites: &[GoldenSuite], told: &str) -> Outcome {
    let refuse = |found: String| Error::invalid("--alone", found, "a case of this run");
    let Alone { adapter: wanted, suite, name } =
        serde_json::from_str(told).map_err(|e| refuse(e.to_string()))?;
    println!("{BEGUN}");
    let mut report = Report::new("");
    for adapter in &adapters::matching(args.adapter.as_deref())? {
        let engine = Arc::new(adapters::open(adapter, args.uses_matrix())?);
        let found = Adapter::describe(adapter, engine.capabilities());
        if !same(&found, &wanted) {
            continue;
        }
        report.adapters.push(found);
        let mut session = Session {
            args,
            adapter,
            engine,
            index: 0,
            report: &mut report,
            journal: &mut Journal::none(),
            expected: &[],
            stop: &AtomicBool::new(false),
            done: HashSet::new(),
            after_crash: true,
            only: Some((suite, name)),
        };
        session.everything(suites)?;
        break;
    }
    let rows = serde_json::to_string(&report.cases)
        .map_err(|e| Error::internal("writing rows", e.to_string()))?;
    println!("{rows}");
    Ok(())
}

fn same(a: &Adapter, b: &Adapter) -> bool {
    (&a.name, &a.backend, &a.driver, &a.driver_info)
        == (&b.name, &b.backend, &b.driver, &b.driver_info)
}

/// Index of an adapter in the report, which may be one of an earlier run.
fn place(report: &mut Report, adapter: Adapter) -> usize {
    let same = |x: &Adapter| same(x, &adapter);
    report.adapters.iter().position(same).unwrap_or_else(|| {
        report.adapters.push(adapter);
        report.adapters.len() - 1
    })
}

fn verdict(totals: &Totals) -> Outcome {
    if totals.fail > 0 {
        return Err(Failure::Wrong(format!("{} of {} cases failed", totals.fail, totals.total)));
    }
    if totals.pass + totals.expected_fail == 0 {
        return Err(Failure::Wrong("no case was run".into()));
    }
    Ok(())
}

/// A line per adapter and suite, then every failure.
fn print(report: &Report) {
    let mut suites: Vec<(usize, &str)> =
        report.cases.iter().map(|case| (case.adapter, case.suite.as_str())).collect();
    suites.sort_unstable();
    suites.dedup();
    let header = ["adapter", "suite", "pass", "fail", "unsupported", "worst ratio", "seconds"];
    let mut summary = table(&header, 2);
    for (adapter, suite) in suites {
        let mut totals = Totals::default();
        let rows = || report.cases.iter().filter(|c| c.adapter == adapter && c.suite == suite);
        rows().for_each(|case| totals.count(case.status));
        let passed = rows().filter(|case| case.status == Status::Pass);
        let worst = passed.filter_map(|case| case.tolerance_ratio).fold(0.0, f64::max);
        // Nothing that ran sums to -0.
        let seconds = rows().filter_map(|case| case.ms).fold(0.0, |sum, ms| sum + ms) / 1e3;
        let info = &report.adapters[adapter];
        summary.add_row([
            format!("{} ({})", info.name, info.backend),
            suite.to_owned(),
            totals.pass.to_string(),
            totals.fail.to_string(),
            totals.unsupported.to_string(),
            format!("{worst:.3}"),
            format!("{seconds:.1}"),
        ]);
    }
    println!("{summary}");
    for case in report.cases.iter().filter(|case| case.status == Status::Fail) {
        println!("FAIL {} [{}] {}", case.name, case.kernel, case.reason);
    }
    let mut reasons: Vec<(&str, usize)> = Vec::new();
    for case in report.cases.iter().filter(|case| case.status == Status::Unsupported) {
        match reasons.iter_mut().find(|(reason, _)| *reason == case.reason) {
            Some((_, n)) => *n += 1,
            None => reasons.push((&case.reason, 1)),
        }
    }
    for (reason, n) in reasons {
        println!("{n} unsupported: {reason}");
    }
}
