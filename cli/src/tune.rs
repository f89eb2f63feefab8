//! `heedful tune`: searches tile shapes on an adapter, proves each, and writes a table that policies read.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use heedful::bench::tune::{Candidate, Given, Target, Trial};
use heedful::verify::report::Report;
use heedful::{Error, Tuning};

use crate::args::TuneArgs;
use crate::outputs::{check, write_text};
use crate::table::{progress, step, table};
use crate::{Outcome, adapters};

/// Rounds over the best few: a single look at a noisy machine proves nothing.
const FINALISTS: usize = 3;

/// Searches, and prints or writes the table.
pub(crate) fn tune(args: &TuneArgs) -> Outcome {
    check(args.out.iter().map(|file| ("--out", file)))?;
    if let Some(dim) = args.dims.iter().find(|dim| !(1..=heedful::tensor::MAX_DIM).contains(*dim)) {
        return Err(
            Error::invalid("--dims", dim, format!("1..={}", heedful::tensor::MAX_DIM)).into()
        );
    }
    let Some(engine) = adapters::engine(args.adapter.as_deref(), true, args.matrix)? else {
        return Ok(());
    };
    let caps = engine.capabilities().clone();
    let budget = Duration::from_secs_f64(args.budget.clamp(0.01, 60.0));
    let mut dims = args.dims.clone();
    dims.sort_unstable();
    dims.dedup();
    let targets: Vec<Target> = dims.iter().flat_map(|dim| Target::all(&engine, *dim)).collect();
    let bar = progress(targets.iter().map(|x| x.candidates.len() + 1).sum(), "tune");
    let mut lines = table(&["kernel", "call", "shipped ms", "best ms", "best shape", "gain"], 2);
    let mut tuning = Tuning::default();
    let from = Report::new(env!("HEEDFUL_REVISION"));
    tuning.provenance.push(format!(
        "heedful {} {}, {}: {} / {} / {}, {}",
        from.heedful, from.revision, from.date, caps.name, caps.backend, caps.driver, from.host.cpu
    ));
    for target in &targets {
        let given = Given::new(target)?;
        step(&bar, &format!("{}, as shipped", target.name));
        let mut shipped = target.attempt(&engine, None, &given, budget)?;
        let mut trials = Vec::new();
        for candidate in &target.candidates {
            step(&bar, &format!("{}, {candidate}", target.name));
            trials.push((candidate, target.attempt(&engine, Some(candidate), &given, budget)?));
        }
        again(target, &engine, &given, budget, &mut shipped, &mut trials)?;
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
                keep(&mut tuning, candidate);
                [format!("{best:.3}"), candidate.to_string(), gain]
            }
            (Some((candidate, best)), _) => {
                keep(&mut tuning, candidate);
                [format!("{best:.3}"), candidate.to_string(), "-".into()]
            }
            (None, _) => ["-".into(), "as shipped".into(), "-".into()],
        };
        lines.add_row([target.name.clone(), call, ms(&shipped), best, shape, gain]);
    }
    bar.finish_and_clear();
    let silent = args.out.as_deref() == Some("-".as_ref());
    if !silent {
        println!("{} ({}) {}\n{lines}", caps.name, caps.backend, caps.driver);
    }
    if let Some(path) = &args.out {
        let json = serde_json::to_string_pretty(&tuning)
            .map_err(|e| Error::internal("writing JSON", e.to_string()))?;
        write_text(path, &json)?;
    }
    Ok(())
}

/// Times the shape that ships and the best few once more, by turns; the smaller median counts.
fn again(
    target: &Target,
    engine: &heedful::Engine,
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
