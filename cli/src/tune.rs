//! `heedful tune`: searches tile shapes on an adapter, proves each, and writes a table that policies read.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use heedful::bench::tune::{Candidate, Given, Target, Trial};
use heedful::verify::report::Report;
use heedful::{Engine, Error, Tuning};

use crate::args::TuneArgs;
use crate::outputs::{check, write_text};
use crate::stop::on_ctrl_c;
use crate::table::{Progress, table};
use crate::{Failure, Outcome, adapters};

/// Rounds over the best few: a single look at a noisy machine proves nothing.
const FINALISTS: usize = 3;

/// Searches, and prints or writes the table.
pub(crate) fn tune(args: &TuneArgs) -> Outcome {
    check(args.out.iter().map(|file| ("--out", file)))?;
    if let Some(dim) = args.dims.iter().find(|dim| !(1..=heedful::Shape::MAX_DIM).contains(*dim)) {
        return Err(
            Error::invalid("--dims", dim, format!("1..={}", heedful::Shape::MAX_DIM)).into()
        );
    }
    let Some(engine) = adapters::engine(args.adapter.as_deref(), true, args.matrix)? else {
        return Ok(());
    };
    let caps = engine.capabilities();
    let budget = Duration::from_secs_f64(args.budget.clamp(0.01, 60.0));
    let mut dims = args.dims.clone();
    dims.sort_unstable();
    dims.dedup();
    let targets: Vec<Target> = dims.iter().flat_map(|dim| Target::all(&engine, *dim)).collect();
    let mut lines = table(&["kernel", "call", "shipped ms", "best ms", "best shape", "gain"], 2);
    let mut tuning = Tuning::default();
    tuning.provenance.push(provenance(&engine));
    let stop = on_ctrl_c("this tile shape")?;
    let mut found = 0;
    let bar = Progress::new(targets.iter().map(|x| x.candidates.len() + 1).sum(), "tune");
    for target in &targets {
        let Some(line) = search(target, &engine, budget, &bar, &stop, &mut tuning)? else { break };
        lines.add_row(line);
        found += 1;
    }
    drop(bar);
    let stopped = found < targets.len();
    if stopped && found == 0 {
        return Err(Failure::Wrong(
            "stopped by Ctrl-C before the first kernel; nothing is written".into(),
        ));
    }
    let silent = args.out.as_deref() == Some("-".as_ref());
    if !silent {
        println!("{} ({}) {}\n{lines}", caps.name, caps.backend, caps.driver);
    }
    if let Some(path) = &args.out {
        let json = serde_json::to_string_pretty(&tuning)
            .map_err(|e| Error::internal("writing JSON", e.to_string()))?;
        write_text(path, &json)?;
    }
    if stopped {
        let all = targets.len();
        return Err(Failure::Wrong(format!(
            "stopped by Ctrl-C after {found} of {all} kernels, which are kept"
        )));
    }
    Ok(())
}

/// Where a table comes from, on one line.
fn provenance(engine: &Engine) -> String {
    let (caps, from) = (engine.capabilities(), Report::new(env!("HEEDFUL_REVISION")));
    format!(
        "heedful {} {}, {}: {} / {} / {}, {}",
        from.heedful, from.revision, from.date, caps.name, caps.backend, caps.driver, from.host.cpu
    )
}

/// Tries every shape of a kernel, keeps the best, and says so on a line of the table; `None` where Ctrl-C came first:
/// half a search proves nothing.
fn search(
    target: &Target,
    engine: &Engine,
    budget: Duration,
    bar: &Progress,
    stop: &AtomicBool,
    tuning: &mut Tuning,
) -> Outcome<Option<[String; 6]>> {
    let given = Given::new(target)?;
    bar.step(&format!("{}, as shipped", target.name));
    let mut shipped = target.attempt(engine, None, &given, budget)?;
    let mut trials = Vec::new();
    for candidate in &target.candidates {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        bar.step(&format!("{}, {candidate}", target.name));
        trials.push((candidate, target.attempt(engine, Some(candidate), &given, budget)?));
    }
    if stop.load(Ordering::Relaxed) {
        return Ok(None);
    }
    again(target, engine, &given, budget, &mut shipped, &mut trials)?;
    let ms = |trial: &Trial| match trial {
        Trial::Timed(ms, _) => format!("{ms:.3}"),
        Trial::Refused(_) => "refused".into(),
    };
    let call = target.attention.shape.to_string();
    let winner = target.winner(&shipped, &trials);
    let [best, shape, gain] = match (winner, &shipped) {
        (Some((candidate, best)), Trial::Timed(old, _)) => {
            let gain = format!("{:.2}x", old / best);
            tuning.provenance.push(format!(
                "{}: {candidate}, {call}: {best:.3} ms, shipped {old:.3} ms",
                target.name
            ));
            keep(tuning, candidate);
            [format!("{best:.3}"), candidate.to_string(), gain]
        }
        (Some((candidate, best)), _) => {
            keep(tuning, candidate);
            [format!("{best:.3}"), candidate.to_string(), "-".into()]
        }
        (None, _) => ["-".into(), "as shipped".into(), "-".into()],
    };
    Ok(Some([target.name.clone(), call, ms(&shipped), best, shape, gain]))
}

/// Times the shape that ships and the best few once more, by turns; the smaller median counts.
fn again(
    target: &Target,
    engine: &Engine,
    given: &Given,
    budget: Duration,
    shipped: &mut Trial,
    trials: &mut [(&Candidate, Trial)],
) -> Outcome {
    trials.sort_by(|a, b| time(&a.1).total_cmp(&time(&b.1)));
    for _ in 0..2 {
        better(shipped, target.attempt(engine, None, given, budget)?);
        for (candidate, trial) in trials.iter_mut().take(FINALISTS) {
            if matches!(trial, Trial::Timed(..)) {
                better(trial, target.attempt(engine, Some(candidate), given, budget)?);
            }
        }
    }
    Ok(())
}

fn time(trial: &Trial) -> f64 {
    match trial {
        Trial::Timed(ms, _) => *ms,
        Trial::Refused(_) => f64::INFINITY,
    }
}

fn better(trial: &mut Trial, other: Trial) {
    if time(&other) < time(trial) {
        *trial = other;
    }
}

fn keep(tuning: &mut Tuning, candidate: &Candidate) {
    match candidate {
        Candidate::Fused(row) => tuning.fused.push(row.clone()),
        Candidate::Tile(row) => tuning.tile.push(row.clone()),
        Candidate::Split(row) => tuning.split.push(row.clone()),
        Candidate::Matrix(row) => tuning.matrix.push(row.clone()),
    }
}

/// Reads a table that was written before.
pub(crate) fn read(path: &Path) -> Result<Arc<Tuning>, Error> {
    let name = path.display().to_string();
    let wanted = "a table that `heedful tune --out` wrote";
    let text = std::fs::read_to_string(path).map_err(|e| Error::invalid(&name, e, wanted))?;
    let tuning: Tuning =
        serde_json::from_str(&text).map_err(|e| Error::invalid(&name, e, wanted))?;
    tuning.validate()?;
    Ok(Arc::new(tuning))
}
