//! `heedful verify`: case grids and recorded cases on one adapter or all, on every path.

use heedful::plan::MAX_ROWS;
use heedful::verify::cases::{Grid, grid};
use heedful::verify::execute::{Execution, Placement};
use heedful::verify::golden::{GoldenCase, GoldenSuite, Precision, Support};
use heedful::verify::report::{Adapter, CaseResult, Report, Status, Totals};
use heedful::verify::run::{Outcome as CaseOutcome, run};
use heedful::verify::truth::Truth;
use heedful::{Attention, Capabilities, Engine, Path, wgpu};

use crate::args::{GridName, VerifyArgs};
use crate::table::{progress, step, table};
use crate::{Failure, Outcome, adapters, outputs};

/// Runs everything asked for and reports it.
pub(crate) fn verify(args: &VerifyArgs) -> Outcome {
    outputs::check(args.report.iter().map(|file| ("--report", file)))?;
    let suites: Vec<GoldenSuite> =
        args.cases.iter().map(|folder| GoldenSuite::open(folder)).collect::<Result<_, _>>()?;
    let mut chosen = adapters::matching(args.adapter.as_deref())?;
    if chosen.is_empty() {
        return Err(Failure::NoAdapter(adapters::INSTALL.into()));
    }
    if !args.all_adapters {
        chosen.truncate(1);
    }
    let mut report = Report::new(option_env!("HEEDFUL_REVISION").unwrap_or_default());
    for (index, adapter) in chosen.iter().enumerate() {
        let engine = Engine::with_adapter_blocking(adapter)?;
        report.adapters.push(describe(adapter, engine.capabilities()));
        let mut session = Session { args, engine, index, report: &mut report };
        if args.grid.is_some() || args.cases.is_empty() {
            session.grid(args.grid.unwrap_or(GridName::Quick))?;
        }
        for suite in &suites {
            session.suite(suite)?;
        }
    }
    if !args.report.iter().any(|file| outputs::is_stdout(file)) {
        print(&report);
    }
    for file in &args.report {
        outputs::write(&report, file)?;
    }
    verdict(&report.totals)
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

/// One adapter's part of the run.
struct Session<'a> {
    args: &'a VerifyArgs,
    engine: Engine,
    index: usize,
    report: &'a mut Report,
}

/// The paths a call is run on: many rows are not what split is for.
fn paths(call: &Attention) -> impl Iterator<Item = Path> + use<> {
    let few = call.shape.seq_q <= MAX_ROWS;
    let paths = [Path::Split, Path::Fused, Path::Staged].into_iter();
    paths.filter(move |path| few || *path != Path::Split)
}

impl Session<'_> {
    fn wanted(&self, name: &str) -> bool {
        self.args.filter.as_deref().is_none_or(|text| name.contains(text))
    }

    fn grid(&mut self, name: GridName) -> Outcome {
        let (cases, suite) = match name {
            GridName::Quick => (grid(Grid::Quick), "quick"),
            GridName::Full => (grid(Grid::Full), "full"),
        };
        let bar = progress(cases.len(), "verify");
        for (i, mut case) in cases.into_iter().enumerate() {
            step(&bar);
            if !self.wanted(&case.name) {
                continue;
            }
            case.seed = self.args.seed.unwrap_or(case.seed);
            let (problem, data) = case.generate()?;
            let truth = Truth::measure(&problem, &data.inputs())?;
            // A third of the cases at odd offsets, so that both access widths are seen.
            let placement = if i % 3 == 0 { Placement::Odd } else { Placement::Aligned };
            for path in paths(&case.attention) {
                let check = |x: &Execution| truth.check(&problem, &x.outputs);
                let inputs = data.inputs();
                let outcome = run(&self.engine, &case.attention, path, &inputs, placement, check)?;
                self.push(&case.name, suite, Some(case.seed), path, outcome);
            }
        }
        bar.finish_and_clear();
        Ok(())
    }

    fn suite(&mut self, suite: &GoldenSuite) -> Outcome {
        let bar = progress(suite.cases.len(), "verify");
        for case in &suite.cases {
            step(&bar);
            if self.wanted(&case.name) {
                self.recorded(suite, case)?;
            }
        }
        bar.finish_and_clear();
        Ok(())
    }

    fn recorded(&mut self, suite: &GoldenSuite, case: &GoldenCase) -> Outcome {
        let loaded = match case.load(Precision::Stored)? {
            Support::Supported(loaded) => loaded,
            Support::Unsupported(reason) => {
                let row = CaseResult::unsupported(&case.name, &suite.name, self.index, reason);
                self.report.push(row);
                return Ok(());
            }
        };
        for path in paths(&loaded.attention) {
            let outcome = loaded.run(&self.engine, path)?;
            self.push(&case.name, &suite.name, None, path, outcome);
        }
        Ok(())
    }

    fn push(
        &mut self,
        name: &str,
        suite: &str,
        seed: Option<u64>,
        path: Path,
        outcome: CaseOutcome,
    ) {
        let mut row = CaseResult::unsupported(name, suite, self.index, "");
        row.seed = seed;
        match outcome {
            CaseOutcome::Unsupported(reason) => {
                row.kernel = path.to_string();
                row.reason = reason;
            }
            CaseOutcome::Ran(ran) => {
                row.judge(&ran.comparisons);
                row.kernel = ran.kernel.clone();
                row.ms = Some(ran.milliseconds);
                if let Some(failure) = ran.failure() {
                    row.status = Status::Fail;
                    row.reason = failure;
                }
            }
        }
        self.report.push(row);
    }
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
        let seconds: f64 = rows().filter_map(|case| case.ms).sum::<f64>() / 1e3;
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
