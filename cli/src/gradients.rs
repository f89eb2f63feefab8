//! `heedful run --grad-out`: gradients of the call's tensors.

use std::path::PathBuf;

use clap::Args;
use heedful::reference::{Gradients, Incoming};
use heedful::verify::data::CaseData;
use heedful::verify::gradients::GradientTruth;
use heedful::verify::npy;
use heedful::{Backward, BackwardProblem, Engine, Error, Normalizer, Operand, Problem, WeightsAt};

use crate::Outcome;
use crate::files::{Elements::Floats, Source};
use crate::outputs;

/// What comes in, and where gradients go.
#[derive(Debug, Args)]
#[command(next_help_heading = "Gradients")]
pub(crate) struct GradientArgs {
    /// Gradient of the output, with the output's axes: computes gradients, which --grad and its short forms write.
    #[arg(long, value_name = "ARRAY")]
    grad_out: Option<String>,
    /// Gradient of the log-sum-exp, floats [batch, query heads, seq_q].
    #[arg(long, value_name = "ARRAY", requires = "grad_out")]
    grad_lse: Option<String>,
    /// Gradient of the weights, floats [batch, query heads, seq_q, seq_kv].
    #[arg(long, value_name = "ARRAY", requires = "grad_out")]
    grad_weights: Option<String>,
    /// Write the gradient of a tensor of the call, f32: --grad bias=d_bias.npy. May be given several times.
    #[arg(long, value_name = "NAME=FILE", requires = "grad_out", value_parser = parse_gradient)]
    grad: Vec<(Operand, PathBuf)>,
    /// Write the gradient of q.
    #[arg(long, value_name = "FILE", requires = "grad_out")]
    grad_q: Option<PathBuf>,
    /// Write the gradient of k, past keys included.
    #[arg(long, value_name = "FILE", requires = "grad_out")]
    grad_k: Option<PathBuf>,
    /// Write the gradient of v, past values included.
    #[arg(long, value_name = "FILE", requires = "grad_out")]
    grad_v: Option<PathBuf>,
}

fn parse_gradient(text: &str) -> Result<(Operand, PathBuf), String> {
    let (name, file) = text.split_once('=').ok_or_else(|| "want NAME=FILE".to_owned())?;
    let operand = Operand::ALL.iter().find(|operand| operand.name() == name);
    let operand = operand.ok_or_else(|| format!("no tensor of a call is called {name:?}"))?;
    Ok((*operand, file.into()))
}

/// How `run` computes: both are said once for outputs and gradients.
#[derive(Clone, Copy)]
pub(crate) struct Shown {
    /// Whether the plan is printed.
    pub(crate) explain: bool,
    /// Whether results are compared with the reference.
    pub(crate) check: bool,
}

/// Gradients as they are asked for.
pub(crate) struct Wanted {
    problem: BackwardProblem,
    o: Vec<f64>,
    lse: Vec<f64>,
    weights: Vec<f64>,
    files: Vec<(Operand, PathBuf)>,
}

impl Wanted {
    /// What is asked of a call; `None` where no gradient comes in.
    pub(crate) fn read(
        args: &GradientArgs,
        source: &mut Source,
        problem: &Problem,
        data: &CaseData,
    ) -> Result<Option<Self>, Error> {
        let Some(name) = &args.grad_out else { return Ok(None) };
        let short =
            [(Operand::Q, &args.grad_q), (Operand::K, &args.grad_k), (Operand::V, &args.grad_v)];
        let mut files = args.grad.clone();
        files.extend(short.into_iter().filter_map(|(of, file)| Some((of, file.clone()?))));
        if files.is_empty() {
            let wanted = "--grad, --grad-q, --grad-k or --grad-v: where gradients go";
            return Err(Error::invalid("--grad-out", "no gradient to write", wanted));
        }
        let mut read = |option: &str, name: &str, columns: u32, like: &str| {
            let array = source.get(option, name, Floats)?;
            padded(problem, data, option, &array, columns, like)
        };
        let s = problem.attention().shape;
        let dtype = problem.attention().dtype;
        let mut o = read("grad-out", name, s.dim_v, "the output")?;
        o.iter_mut().for_each(|x| *x = dtype.round(*x));
        let lse =
            args.grad_lse.as_ref().map(|name| read("grad-lse", name, 1, "lse")).transpose()?;
        let weights = args.grad_weights.as_ref();
        let weights =
            weights.map(|name| read("grad-weights", name, s.seq_kv, "the weights")).transpose()?;
        let mut call = problem.attention().clone();
        call.lse |= lse.is_some() && call.normalizer == Normalizer::Softmax;
        if weights.is_some() {
            call.weights = Some(WeightsAt::Probabilities);
        }
        let operands: Vec<Operand> = files.iter().map(|(operand, _)| *operand).collect();
        let mut asked = Backward::of(call).only(&operands);
        if lse.is_some() {
            asked = asked.from_lse();
        }
        if weights.is_some() {
            asked = asked.from_weights();
        }
        let problem = asked.validate()?;
        let (lse, weights) = (lse.unwrap_or_default(), weights.unwrap_or_default());
        Ok(Some(Self { problem, o, lse, weights, files }))
    }

    /// The files that will be written, each with the option that names it.
    pub(crate) fn files(&self) -> Vec<(&str, &PathBuf)> {
        self.files.iter().map(|(_, file)| ("--grad", file)).collect()
    }

    /// Computes on the engine, or on the reference where there is none; compares and writes. Returns what is wrong.
    pub(crate) fn run(
        &self,
        shown: Shown,
        engine: Option<&Engine>,
        data: &CaseData,
        rank: usize,
    ) -> Outcome<Option<String>> {
        let incoming = Incoming { o: &self.o, lse: &self.lse, weights: &self.weights };
        let inputs = data.inputs();
        let found = match engine {
            Some(engine) => {
                let plan = engine.plan_backward(self.problem.backward())?;
                if shown.explain {
                    println!("{plan}");
                }
                engine.run_backward_host(&plan, &inputs, &incoming)?
            }
            None => self.problem.reference(&inputs, &incoming)?,
        };
        let mut wrong = None;
        if shown.check {
            let truth = GradientTruth::measure(&self.problem, &inputs, &incoming)?;
            for (operand, comparison) in truth.check(&found) {
                let verdict = if comparison.pass { "ok" } else { "WRONG" };
                let message = comparison.message();
                println!("gradient of {operand:<8} {verdict}: {message}");
                if !comparison.pass {
                    wrong = wrong.or(Some(format!("gradient of {operand}: {message}")));
                }
            }
        }
        self.write(data, rank, &found)?;
        Ok(wrong)
    }

    fn write(&self, data: &CaseData, rank: usize, found: &Gradients) -> Result<(), Error> {
        let problem = self.problem.problem();
        for (operand, file) in &self.files {
            let values = found.get(*operand).unwrap_or_default();
            let (shape, values) = match operand {
                Operand::Q | Operand::K | Operand::V => rows(problem, data, *operand, values, rank),
                _ => (shape_of(problem, *operand, values.len()), values.to_vec()),
            };
            outputs::put(file, &npy::encode(&shape, &values))?;
        }
        Ok(())
    }
}

/// The shape of the gradient of a tensor that is no rows.
fn shape_of(problem: &Problem, operand: Operand, n: usize) -> Vec<u64> {
    let a = problem.attention();
    let heads = u64::from(a.shape.heads_q);
    match (operand, a.bias) {
        (Operand::Bias, Some(bias)) => bias.0.iter().map(|n| u64::from(*n)).collect(),
        (Operand::Relative, _) => vec![heads, n as u64 / heads.max(1)],
        (Operand::ScoreMatrix, _) => {
            let columns = u64::from(a.shape.dim_qk);
            vec![n as u64 / columns.max(1), columns]
        }
        _ => vec![n as u64],
    }
}

/// Values `[batch, heads_q, seq_q, columns]` of an array with as many axes as q, or `[total, heads, columns]` where
/// sequences are packed; lse lacks the last axis.
fn padded(
    problem: &Problem,
    data: &CaseData,
    option: &str,
    array: &npy::Array,
    columns: u32,
    like: &str,
) -> Result<Vec<f64>, Error> {
    let s = problem.attention().shape;
    let operands = data.operands();
    let packed = problem.attention().packed;
    let all = |total: u32| u64::from(total) * u64::from(s.heads_q);
    let rows = packed.map_or(s.rows(), |packed| all(packed.total_q));
    let wanted = rows * u64::from(columns);
    let last = array.shape.last().copied().unwrap_or(0);
    let fits = columns == 1 || last == u64::from(columns);
    if array.values.len() as u64 != wanted || !fits {
        let wanted = format!("{wanted} elements, laid out as {like}");
        return Err(Error::invalid(format!("--{option}"), format!("{:?}", array.shape), wanted));
    }
    if packed.is_none() {
        return Ok(array.values.clone());
    }
    let columns = columns as usize;
    let mut values = Vec::with_capacity(s.rows() as usize * columns);
    for at in s.row_positions() {
        let start = problem.lse_index(at, &operands) as usize * columns;
        match array.values.get(start..start + columns) {
            Some(row) if problem.stores(at[0], at[2], &operands) => values.extend_from_slice(row),
            _ => values.resize(values.len() + columns, 0.0),
        }
    }
    Ok(values)
}

/// A gradient of rows with its shape: as many axes as q has, or `[total, heads, dim]` where sequences are packed.
fn rows(
    problem: &Problem,
    data: &CaseData,
    operand: Operand,
    values: &[f64],
    rank: usize,
) -> (Vec<u64>, Vec<f64>) {
    let a = problem.attention();
    let s = a.shape;
    let of_q = operand == Operand::Q;
    let (heads, seq) = if of_q { (s.heads_q, s.seq_q) } else { (s.heads_kv, s.seq_kv) };
    let dim = problem.dim(operand);
    let Some(packed) = a.packed else {
        let all = [s.batch, heads, seq, dim].map(u64::from);
        return (all[4 - rank..].to_vec(), values.to_vec());
    };
    let total = if of_q { packed.total_q } else { packed.total_kv };
    let operands = data.operands();
    let starts = if of_q { operands.cu_seqlens_q } else { operands.cu_seqlens_kv };
    let (width, row) = (dim as usize, heads as usize * dim as usize);
    let mut laid = vec![0.0; total as usize * row];
    for batch in 0..s.batch {
        let (q_len, kv_len) = problem.lengths(batch, &operands);
        let start = starts.get(batch as usize).copied().unwrap_or(0) as usize;
        for head in 0..heads as usize {
            for i in 0..(if of_q { q_len } else { kv_len }) as usize {
                let from = ((batch as usize * heads as usize + head) * seq as usize + i) * width;
                let to = (start + i) * row + head * width;
                let to = laid.get_mut(to..to + width);
                if let (Some(to), Some(from)) = (to, values.get(from..from + width)) {
                    to.copy_from_slice(from);
                }
            }
        }
    }
    ([total, heads, dim].map(u64::from).to_vec(), laid)
}
