//! `heedful bench`: times every path on every workload of a suite, each result checked first.

mod check;
mod gradients;
mod output;
mod peers;
mod plot;
mod record;
mod rows;
mod timing;

pub(crate) use output::limits;
pub(crate) use record::{Recorded, compare, read, readme};

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use heedful::bench::{Clock, Measurement, Workload};
use heedful::verify::data::CaseData;

use crate::args::BenchArgs;
use crate::outputs::{self, is_stdout, write_text};
use crate::stop::on_ctrl_c;
use crate::table::Progress;
use crate::{Failure, Outcome, adapters};
use rows::{Provenance, Record, Row, Verdict};
use timing::Session;

/// Times the suite.
pub(crate) fn bench(args: &BenchArgs) -> Outcome {
    let workloads = workloads(args)?;
    let single = [("--json", &args.json), ("--csv", &args.csv), ("--markdown", &args.markdown)];
    let single = single.iter().filter_map(|(option, file)| Some((*option, file.as_ref()?)));
    outputs::check(single.chain(args.plot.iter().map(|file| ("--plot", file))))?;
    args.plot.iter().map(|path| plot::known(path)).collect::<Outcome<Vec<()>>>()?;
    let peers = peers::read(&args.peers)?;
    let engine =
        adapters::engine(args.adapter.as_deref(), args.require_adapter, args.uses_matrix())?;
    let provenance = Provenance::new(args.suite_name(), args.named(), engine.as_ref());
    let stop = on_ctrl_c("this row")?;
    let mut record = match engine {
        Some(engine) => Session::new(args, engine, provenance, &stop)?.run(&workloads)?,
        None => Record { provenance, rows: on_reference(args, &workloads, &stop)? },
    };
    let (stopped, rows) = (stop.load(Ordering::Relaxed), record.rows.len());
    if stopped && rows == 0 {
        return Err(Failure::Wrong(
            "stopped by Ctrl-C before the first row; nothing is written".into(),
        ));
    }
    peers::join(&mut record, &peers);
    let silent = [&args.json, &args.csv, &args.markdown];
    let silent = silent.iter().any(|x| x.as_deref().is_some_and(is_stdout));
    if !silent {
        output::print(&record);
    }
    let written = write(args, &record)?;
    if !silent {
        written.iter().for_each(|path| println!("wrote {}", path.display()));
    }
    if stopped {
        return Err(Failure::Wrong(format!("stopped by Ctrl-C after {rows} rows, which are kept")));
    }
    verdict(&record)
}

fn workloads(args: &BenchArgs) -> Outcome<Vec<Workload>> {
    let mut workloads = match &args.definitions {
        Some(path) => Workload::read(path)?,
        None => Workload::suite(args.suite_name())?,
    };
    let wanted = |x: &Workload| args.filter.as_deref().is_none_or(|text| x.name.contains(text));
    workloads.retain(wanted);
    let model = args.filter.as_deref().is_some_and(|text| timing::MODEL.contains(text));
    if workloads.is_empty() && !model {
        return Err(heedful::Error::invalid("--filter", "no workload", "part of a name").into());
    }
    Ok(workloads)
}

/// Writes what was asked for; the names of pictures and of a record's files come back.
fn write(args: &BenchArgs, record: &Record) -> Outcome<Vec<PathBuf>> {
    if let Some(path) = &args.json {
        let json = serde_json::to_string_pretty(record)
            .map_err(|e| heedful::Error::internal("writing JSON", e.to_string()))?;
        write_text(path, &json)?;
    }
    if let Some(path) = &args.csv {
        write_text(path, output::csv(&record.rows)?.trim_end())?;
    }
    if let Some(path) = &args.markdown {
        write_text(path, output::markdown(record).trim_end())?;
    }
    let mut written = Vec::new();
    for path in &args.plot {
        written.extend(plot::write(path, record)?);
    }
    if let Some(folder) = &args.record {
        written.extend(record::write(folder, record)?);
    }
    Ok(written)
}

fn verdict(record: &Record) -> Outcome {
    let count = |verdict| record.rows.iter().filter(|row| row.verdict == verdict).count();
    let (wrong, failed) = (count(Verdict::Wrong), count(Verdict::Failed));
    if wrong > 0 {
        return Err(Failure::Wrong(format!("{wrong} results were wrong")));
    }
    if failed > 0 {
        let first = record.rows.iter().find(|row| row.verdict == Verdict::Failed);
        let reason = first.map_or("", |row| &row.reason);
        return Err(heedful::Error::internal(format!("{failed} rows"), reason).into());
    }
    Ok(())
}

/// The same work on the float64 reference, where there is no adapter.
fn on_reference(args: &BenchArgs, workloads: &[Workload], stop: &AtomicBool) -> Outcome<Vec<Row>> {
    let mut rows = Vec::new();
    let bar = Progress::new(workloads.len(), "bench");
    for workload in workloads {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        bar.step(&workload.name);
        let problem = workload.attention.validate()?;
        let data = CaseData::generate(&problem, 1, &workload.data);
        let shape = workload.attention.shape.to_string();
        let mut row = Row::new(&workload.name, shape, problem.feature_text(), "reference".into());
        row.kernel = "float64 on the CPU".into();
        row.gflop = problem.flops(&data.operands()) as f64 / 1e9;
        row.megabytes = problem.min_bytes(&data.operands()) as f64 / 1e6;
        // The reference is some hundred times slower than a software adapter.
        let limit = args.max_gflop.unwrap_or(10.0);
        if row.gflop > limit {
            row.reason = format!("{:.0} GFLOP, more than --max-gflop {limit:.0}", row.gflop);
            rows.push(row);
            continue;
        }
        let start = Instant::now();
        problem.reference(&data.inputs())?;
        let ms = start.elapsed().as_secs_f64() * 1e3;
        let (median_ms, min_ms, spread_ms) = (ms, ms, 0.0);
        row.timed(&Measurement { median_ms, min_ms, spread_ms, runs: 1, clock: Clock::Wall });
        (row.max_abs, row.tolerance_ratio) = (Some(0.0), Some(0.0));
        rows.push(row);
    }
    Ok(rows)
}
