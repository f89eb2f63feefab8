//! `heedful run`: one attention call on arrays from files.

use std::path::PathBuf;

use heedful::reference::Outputs;
use heedful::verify::data::CaseData;
use heedful::verify::npy;
use heedful::verify::truth::Truth;
use heedful::{Engine, Error, Path, Policy, Problem};

use crate::args::RunArgs;
use crate::call::Asked;
use crate::files::Source;
use crate::gradients::{Shown, Wanted};
use crate::{Failure, Outcome, adapters, outputs};

/// Runs the call, checks it if asked to, and writes the outputs.
pub(crate) fn run(args: &RunArgs) -> Outcome {
    let Asked { problem, data, rank } = Asked::read(args)?;
    data.inputs().validate(&problem)?;
    // Before anything is computed, so that no run ends with some of its outputs.
    let files = [("--out", &args.out), ("--lse", &args.lse), ("--weights", &args.weights)];
    let mut source = Source::open(args.npz.as_ref(), args.safetensors.as_ref())?;
    let wanted = Wanted::read(&args.gradients, &mut source, &problem, &data)?;
    let given = files.iter().filter_map(|(option, file)| Some((*option, file.as_ref()?)));
    let mut given: Vec<(&str, &PathBuf)> = given.collect();
    given.extend(wanted.iter().flat_map(Wanted::files));
    outputs::check(given)?;
    let engine = engine(args)?;
    let mut verdict = None;
    // Whoever asks for gradients alone need not have the output computed.
    if wanted.is_none() || files.iter().any(|(_, file)| file.is_some()) {
        let (computed, path) = compute(args, engine.as_ref(), &problem, &data)?;
        if args.check {
            verdict = check(&problem, &data, &computed, path)?;
        }
        write(args, &problem, &data, rank, &computed)?;
    }
    if let Some(wanted) = &wanted {
        let shown = Shown { explain: args.explain, check: args.check };
        let wrong = wanted.run(shown, engine.as_ref(), &data, rank)?;
        verdict = verdict.or(wrong);
    }
    match verdict {
        Some(wrong) => Err(Failure::Wrong(wrong)),
        None => Ok(()),
    }
}

/// Where the call runs; `None` is the reference.
fn engine(args: &RunArgs) -> Outcome<Option<Engine>> {
    let matrix = args.matrix || args.path.is_matrix();
    match args.path.path() {
        Some(_) => adapters::engine(args.adapter.as_deref(), args.require_adapter, matrix),
        None => Ok(None),
    }
}

/// The outputs, and the path that they took; `None` is the reference.
fn compute(
    args: &RunArgs,
    engine: Option<&Engine>,
    problem: &Problem,
    data: &CaseData,
) -> Outcome<(Outputs, Option<Path>)> {
    let (Some(engine), Some(path)) = (engine, args.path.path()) else {
        if args.explain {
            println!("plan for {problem}\n  path    reference (float64, CPU)");
        }
        return Ok((problem.reference(&data.inputs())?, None));
    };
    let policy = Policy { path, matrix_units: args.matrix, ..Policy::default() };
    let plan = engine.plan_with(problem.attention(), &policy)?;
    if args.explain {
        println!("{plan}");
    }
    Ok((engine.run_host(&plan, &data.inputs())?, Some(plan.path())))
}

/// Compares with the reference; prints a line per output, and returns what is wrong.
fn check(
    problem: &Problem,
    data: &CaseData,
    outputs: &Outputs,
    path: Option<Path>,
) -> Outcome<Option<String>> {
    let truth = if path.is_some_and(Path::is_matrix) {
        Truth::measure_on_matrix_units(problem, &data.inputs())?
    } else {
        Truth::measure(problem, &data.inputs())?
    };
    let mut wrong = None;
    for (operand, comparison) in truth.check(problem, outputs) {
        let verdict = if comparison.pass { "ok" } else { "WRONG" };
        println!("{operand:<8} {verdict}: {}", comparison.message());
        if !comparison.pass {
            wrong = wrong.or(Some(format!("{operand}: {}", comparison.message())));
        }
    }
    Ok(wrong)
}

fn save(path: &std::path::Path, shape: &[u64], values: &[f64]) -> Result<(), Error> {
    outputs::put(path, &npy::encode(shape, values))
}

/// Writes outputs with as many axes as q has.
fn write(
    args: &RunArgs,
    problem: &Problem,
    data: &CaseData,
    rank: usize,
    outputs: &Outputs,
) -> Result<(), Error> {
    let s = problem.attention().shape;
    let shape = |last: &[u32]| -> Vec<u64> {
        let all: Vec<u64> =
            [s.batch, s.heads_q, s.seq_q].iter().chain(last).map(|n| (*n).into()).collect();
        all[4 - rank..].to_vec()
    };
    if let Some(packed) = problem.attention().packed {
        let heads = [u64::from(packed.total_q), s.heads_q.into()];
        if let Some(path) = &args.out {
            let o = pack(problem, data, &outputs.o, s.dim_v as usize);
            save(path, &[heads[0], heads[1], s.dim_v.into()], &o)?;
        }
        if let Some(path) = &args.lse {
            save(path, &heads, &pack(problem, data, &outputs.lse, 1))?;
        }
        return Ok(());
    }
    if let Some(path) = &args.out {
        save(path, &shape(&[s.dim_v]), &outputs.o)?;
    }
    if let Some(path) = &args.lse {
        save(path, &shape(&[]), &outputs.lse)?;
    }
    if let (Some(path), Some(weights)) = (&args.weights, &outputs.weights) {
        save(path, &shape(&[s.seq_kv]), weights)?;
    }
    Ok(())
}

/// Rows of `[batch, heads, seq, …]` outputs, one sequence after another: `[total, heads, …]`.
fn pack(problem: &Problem, data: &CaseData, values: &[f64], columns: usize) -> Vec<f64> {
    let operands = data.inputs().operands;
    let total = problem.attention().packed.map_or(0, |packed| packed.total_q) as usize;
    let heads = problem.attention().shape.heads_q as usize;
    let mut packed = vec![0.0; total * heads * columns];
    for (row, at) in problem.attention().shape.row_positions().enumerate() {
        if problem.stores(at[0], at[2], &operands) {
            let to = problem.lse_index(at, &operands) as usize * columns;
            packed[to..to + columns].copy_from_slice(&values[row * columns..][..columns]);
        }
    }
    packed
}
