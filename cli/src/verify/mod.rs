//! `heedful verify`: case grids and recorded cases on one adapter or all, on every path.

mod ahead;
mod saved;
mod session;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use heedful::verify::expectations::{self, KNOWN};
use heedful::verify::golden::GoldenSuite;
use heedful::verify::report::{Adapter, Report, Status, Totals};
use heedful::{Capabilities, wgpu};

use crate::args::{GridName, VerifyArgs};
use crate::table::table;
use crate::{Failure, Outcome, adapters, outputs};
use saved::Saved;
use session::Session;

/// Runs everything asked for and reports it.
pub(crate) fn verify(args: &VerifyArgs) -> Outcome {
    let suites: Vec<GoldenSuite> =
        args.cases.iter().map(|folder| GoldenSuite::open(folder)).collect::<Result<_, _>>()?;
    outputs::check(args.report.iter().map(|file| ("--report", file)))?;
    let mut chosen = adapters::matching(args.adapter.as_deref())?;
    if chosen.is_empty() {
        return Err(Failure::NoAdapter(adapters::INSTALL.into()));
    }
    if !args.all_adapters {
        chosen.truncate(1);
    }
    let mut expected = KNOWN.to_vec();
    for path in &args.expect {
        expected.extend(expectations::read(path)?);
    }
    let mut saved = Saved::new(&args.report);
    let earlier = if args.resume { saved.earlier()? } else { None };
    let mut report = earlier.unwrap_or_else(|| Report::new(env!("HEEDFUL_REVISION")));
    let stop = stopped_by_ctrl_c()?;
    for adapter in &chosen {
        let engine = Arc::new(adapters::open(adapter, args.uses_matrix())?);
        let index = place(&mut report, describe(adapter, engine.capabilities()));
        saved.keep(&report)?;
        let here = report.cases.iter().filter(|case| case.adapter == index);
        let done = here.map(|case| (case.suite.clone(), case.name.clone())).collect();
        let (report, saved, stop) = (&mut report, &mut saved, &*stop);
        let expected = &expected;
        let mut session =
            Session { args, adapter, engine, index, report, saved, expected, stop, done };
        if args.grid.is_some() || args.cases.is_empty() {
            session.grid(args.grid.unwrap_or(GridName::Quick))?;
        }
        for suite in &suites {
            session.suite(suite)?;
        }
    }
    if args.report.iter().all(|path| !outputs::is_stdout(path)) {
        print(&report);
    }
    for path in &args.report {
        outputs::write(&report, path)?;
    }
    saved.rest();
    if stop.load(Ordering::Relaxed) {
        let more = if args.report.is_empty() { "" } else { "; --resume goes on from there" };
        let rows = report.totals.total;
        return Err(Failure::Wrong(format!("stopped by Ctrl-C after {rows} results{more}")));
    }
    verdict(&report.totals)
}

/// A flag that the first Ctrl-C sets; the case that runs is finished. The second one ends the process.
fn stopped_by_ctrl_c() -> Outcome<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if set.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    })
    .map_err(|e| heedful::Error::internal("listening for Ctrl-C", e.to_string()))?;
    Ok(stop)
}

/// Index of an adapter in the report, which may be one of an earlier run.
fn place(report: &mut Report, adapter: Adapter) -> usize {
    let same = |x: &Adapter| {
        (&x.name, &x.backend, &x.driver, &x.driver_info)
            == (&adapter.name, &adapter.backend, &adapter.driver, &adapter.driver_info)
    };
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

fn describe(adapter: &wgpu::Adapter, caps: &Capabilities) -> Adapter {
    let info = adapter.get_info();
    let limits = [
        ("max_storage_buffer_binding_size", caps.max_binding_bytes),
        ("max_buffer_size", caps.max_buffer_bytes),
        ("max_storage_buffers_per_shader_stage", caps.max_storage_buffers.into()),
        ("max_compute_workgroup_storage_size", caps.max_workgroup_bytes.into()),
        ("max_compute_invocations_per_workgroup", caps.max_invocations.into()),
        ("max_compute_workgroups_per_dimension", caps.max_workgroups.into()),
        ("min_storage_buffer_offset_alignment", caps.storage_alignment),
    ];
    Adapter {
        name: info.name,
        backend: info.backend.to_string(),
        driver: info.driver,
        driver_info: info.driver_info,
        kind: caps.device_type.clone(),
        limits: limits.into_iter().map(|(name, n)| (name.to_owned(), n)).collect(),
        features: adapter.features().iter_names().map(|(name, _)| name.into()).collect(),
        subgroup: caps.subgroup_size,
    }
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
