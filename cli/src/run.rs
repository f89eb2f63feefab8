//! `heedful run`: one attention call on arrays from files.

use heedful::feature::mask::Causal;
use heedful::reference::{Outputs, attend};
use heedful::verify::data::CaseData;
use heedful::verify::npy::{self, Array};
use heedful::verify::truth::Truth;
use heedful::{Attention, Error, Layout, Normalizer, Path, Policy, Problem, Shape};

use crate::args::RunArgs;
use crate::files::Elements::{Counts, Flags, Floats};
use crate::files::Source;
use crate::{Failure, Outcome, adapters, outputs};

/// Runs the call, checks it if asked to, and writes the outputs.
pub(crate) fn run(args: &RunArgs) -> Outcome {
    let (attention, data, rank) = read(args)?;
    let problem = attention.validate()?;
    data.inputs().validate(&problem)?;
    // Before anything is computed, so that no run ends with some of its outputs.
    let files = [("--out", &args.out), ("--lse", &args.lse), ("--weights", &args.weights)];
    outputs::check(files.iter().filter_map(|(option, file)| Some((*option, file.as_ref()?))))?;
    let (computed, path) = compute(args, &problem, &data)?;
    let verdict = if args.check { check(&problem, &data, &computed, path)? } else { None };
    write(args, &problem, &data, rank, &computed)?;
    match verdict {
        Some(wrong) => Err(Failure::Wrong(wrong)),
        None => Ok(()),
    }
}

fn read(args: &RunArgs) -> Result<(Attention, CaseData, usize), Error> {
    let mut source = Source::open(args.npz.as_ref(), args.safetensors.as_ref())?;
    let q = source.get("q", &args.q, Floats)?;
    if let (Some(starts_q), Some(starts_k)) = (&args.cu_seqlens_q, &args.cu_seqlens_k) {
        let starts_q = starts("cu-seqlens-q", &source.get("cu-seqlens-q", starts_q, Counts)?)?;
        let starts_k = starts("cu-seqlens-k", &source.get("cu-seqlens-k", starts_k, Counts)?)?;
        let (attention, data) = read_packed(args, &mut source, q, starts_q, starts_k)?;
        let sizes = [attention.shape.dim_qk, 0];
        let (attention, data) = options(args, &mut source, attention, data, sizes)?;
        return Ok((attention, data, 3));
    }
    let rank = q.shape.len();
    let q = four_axes("q", q)?;
    let mut k = four_axes("k", source.get("k", &args.k, Floats)?)?;
    let mut v = four_axes("v", source.get("v", &args.v, Floats)?)?;
    if let (Some(past_k), Some(past_v)) = (&args.past_k, &args.past_v) {
        k = prepend("past-k", four_axes("past-k", source.get("past-k", past_k, Floats)?)?, k)?;
        v = prepend("past-v", four_axes("past-v", source.get("past-v", past_v, Floats)?)?, v)?;
    }
    let shape = shape_of(&q, &k, &v, args.form.projects())?;
    let past = match &args.past_k {
        Some(past) => four_axes("past-k", source.get("past-k", past, Floats)?)?.shape[2] as u32,
        None => 0,
    };
    let sizes = [q.shape[3] as u32, past];
    let round = |array: Array| array.values.iter().map(|x| args.dtype.round(*x)).collect();
    let data = CaseData { q: round(q), k: round(k), v: round(v), ..CaseData::default() };
    let attention = Attention::new(shape).dtype(args.dtype).layout(Layout::Bhsd);
    let (attention, data) = options(args, &mut source, attention, data, sizes)?;
    Ok((attention, data, rank))
}

/// Packed sequences: q `[total_q, heads, dim]`, k and v likewise.
fn read_packed(
    args: &RunArgs,
    source: &mut Source,
    q: Array,
    cu_seqlens_q: Vec<u32>,
    cu_seqlens_kv: Vec<u32>,
) -> Result<(Attention, CaseData), Error> {
    let (k, v) = (source.get("k", &args.k, Floats)?, source.get("v", &args.v, Floats)?);
    for (name, array) in [("q", &q), ("k", &k), ("v", &v)] {
        if array.shape.len() != 3 {
            let found = format!("shape {:?}", array.shape);
            return Err(Error::invalid(format!("--{name}"), found, "[total, heads, dim]"));
        }
    }
    let as_four = |array: &Array| Array {
        shape: vec![1, array.shape[1], array.shape[0], array.shape[2]],
        values: Vec::new(),
        ..*array
    };
    let whole = shape_of(&as_four(&q), &as_four(&k), &as_four(&v), false)?;
    let longest =
        |starts: &[u32]| starts.windows(2).map(|w| w[1].saturating_sub(w[0])).max().unwrap_or(0);
    let shape = Shape {
        batch: cu_seqlens_q.len().saturating_sub(1) as u32,
        seq_q: longest(&cu_seqlens_q),
        seq_kv: longest(&cu_seqlens_kv),
        ..whole
    };
    for (name, starts, total) in [
        ("cu-seqlens-q", &cu_seqlens_q, whole.seq_q),
        ("cu-seqlens-k", &cu_seqlens_kv, whole.seq_kv),
    ] {
        let rising = starts.windows(2).all(|w| w[0] <= w[1]);
        if starts.first() != Some(&0) || starts.last() != Some(&total) || !rising {
            let wanted = format!("0, rising to {total}");
            return Err(Error::invalid(format!("--{name}"), format!("{starts:?}"), wanted));
        }
    }
    let round = |array: Array| array.values.iter().map(|x| args.dtype.round(*x)).collect();
    let data = CaseData {
        q: round(q),
        k: round(k),
        v: round(v),
        cu_seqlens_q,
        cu_seqlens_kv,
        ..CaseData::default()
    };
    let attention = Attention::new(shape).dtype(args.dtype);
    Ok((attention.packed(whole.seq_q, whole.seq_kv), data))
}

/// Everything of the call but q, k and v.
fn options(
    args: &RunArgs,
    source: &mut Source,
    mut attention: Attention,
    mut data: CaseData,
    sizes: [u32; 2],
) -> Result<(Attention, CaseData), Error> {
    args.form.apply(source, &mut attention, &mut data, sizes)?;
    attention.scale = args.scale.map(Into::into);
    attention.softcap = args.softcap.map(Into::into);
    attention.masks.causal = args.causal.map(|align| Causal { align });
    attention.masks.window = window(args)?;
    let softmax = attention.normalizer == Normalizer::Softmax;
    attention.lse = args.lse.is_some() || (args.check && softmax);
    attention.weights = args.weights.as_ref().map(|_| args.weights_at.into());
    let single = |x: &f64| f64::from(*x as f32);
    if let Some(name) = &args.mask {
        let array = source.get("mask", name, Flags)?;
        attention = attention.mask(right_aligned("mask", &array.shape)?);
        data.mask = array.values.iter().map(|x| *x != 0.0).collect();
    }
    if let Some(name) = &args.bias {
        let array = source.get("bias", name, Floats)?;
        attention.bias = Some(heedful::Broadcast(right_aligned("bias", &array.shape)?));
        data.bias = array.values.iter().map(single).collect();
    }
    let shape = attention.shape;
    let (heads, batch) = ([("heads_q", shape.heads_q)], [("batch", shape.batch)]);
    if let Some(name) = &args.alibi {
        let slopes = source.of_shape("alibi", name, Floats, &heads)?;
        data.alibi_slopes = slopes.iter().map(single).collect();
        attention = attention.alibi(args.alibi_offset);
    }
    if let Some(name) = &args.sinks {
        let sinks = source.of_shape("sinks", name, Floats, &heads)?;
        data.sinks = sinks.iter().map(single).collect();
        attention.sinks = true;
    }
    let mut lengths = |option: &str, name: &str| -> Result<Vec<u32>, Error> {
        let lengths = source.of_shape(option, name, Counts, &batch)?;
        Ok(lengths.into_iter().map(|n| n as u32).collect())
    };
    if let Some(name) = &args.kv_lengths {
        data.kv_lengths = lengths("kv-lengths", name)?;
        attention.kv_lengths = true;
    }
    if let Some(name) = &args.q_lengths {
        data.q_lengths = lengths("q-lengths", name)?;
        attention.q_lengths = true;
    }
    Ok((attention, data))
}

fn window(args: &RunArgs) -> Result<Option<heedful::Window>, Error> {
    let Some((left, right)) = args.window else { return Ok(None) };
    let Some(align) = args.window_align.or(args.causal) else {
        let wanted = "--window-align (or --causal), since libraries disagree on the diagonal";
        return Err(Error::invalid("--window", "no alignment", wanted));
    };
    Ok(Some(heedful::Window { left, right, align }))
}

/// `[seq, dim]` and `[heads, seq, dim]` get leading axes of 1.
fn four_axes(name: &str, mut array: Array) -> Result<Array, Error> {
    if !(2..=4).contains(&array.shape.len()) {
        let found = format!("shape {:?}", array.shape);
        return Err(Error::invalid(format!("--{name}"), found, "2, 3 or 4 axes"));
    }
    while array.shape.len() < 4 {
        array.shape.insert(0, 1);
    }
    Ok(array)
}

/// Puts `past` before `new` along the sequence.
fn prepend(name: &str, past: Array, new: Array) -> Result<Array, Error> {
    let differ = [0, 1, 3].iter().any(|&axis| past.shape[axis] != new.shape[axis]);
    if differ {
        let found = format!("shape {:?}", past.shape);
        let wanted = format!("{:?} but for the sequence", new.shape);
        return Err(Error::invalid(format!("--{name}"), found, wanted));
    }
    let row = |array: &Array| (array.shape[2] * array.shape[3]) as usize;
    let (past_row, new_row) = (row(&past), row(&new));
    let pairs = (new.shape[0] * new.shape[1]) as usize;
    let mut values = Vec::with_capacity(past.values.len() + new.values.len());
    for pair in 0..pairs {
        values.extend_from_slice(&past.values[pair * past_row..][..past_row]);
        values.extend_from_slice(&new.values[pair * new_row..][..new_row]);
    }
    let mut shape = new.shape.clone();
    shape[2] += past.shape[2];
    Ok(Array { shape, values, ..new })
}

/// `projects`: q may have other channels than k.
fn shape_of(q: &Array, k: &Array, v: &Array, projects: bool) -> Result<Shape, Error> {
    let size = |name: &str, n: u64| {
        u32::try_from(n).map_err(|_| Error::invalid(format!("--{name}"), n, "less than 2^32"))
    };
    let same = |name: &str, axis: &str, found: u64, wanted: u64| {
        if found == wanted {
            return Ok(());
        }
        Err(Error::invalid(format!("--{name}, axis {axis}"), found, wanted))
    };
    same("k", "batch", k.shape[0], q.shape[0])?;
    same("v", "batch", v.shape[0], q.shape[0])?;
    same("v", "heads", v.shape[1], k.shape[1])?;
    same("v", "seq", v.shape[2], k.shape[2])?;
    same("k", "dim", k.shape[3], if projects { k.shape[3] } else { q.shape[3] })?;
    Ok(Shape {
        batch: size("q", q.shape[0])?,
        heads_q: size("q", q.shape[1])?,
        heads_kv: size("k", k.shape[1])?,
        seq_q: size("q", q.shape[2])?,
        seq_kv: size("k", k.shape[2])?,
        dim_qk: size("k", k.shape[3])?,
        dim_v: size("v", v.shape[3])?,
    })
}

/// A shape of at most four axes, with leading axes of 1.
fn right_aligned(name: &str, shape: &[u64]) -> Result<[u32; 4], Error> {
    let bad = || {
        let found = format!("shape {shape:?}");
        Error::invalid(format!("--{name}"), found, "at most 4 axes, [batch, heads, seq_q, seq_kv]")
    };
    let mut full = [1_u32; 4];
    let start = 4_usize.checked_sub(shape.len()).ok_or_else(bad)?;
    for (axis, n) in full[start..].iter_mut().zip(shape) {
        *axis = u32::try_from(*n).map_err(|_| bad())?;
    }
    Ok(full)
}

/// Where packed sequences start, and their total.
fn starts(option: &str, array: &Array) -> Result<Vec<u32>, Error> {
    if array.shape.len() != 1 {
        let found = format!("shape {:?}", array.shape);
        return Err(Error::invalid(format!("--{option}"), found, "[sequences + 1]"));
    }
    Ok(array.values.iter().map(|n| *n as u32).collect())
}

/// The outputs, and the path that they took; `None` is the reference.
fn compute(args: &RunArgs, problem: &Problem, data: &CaseData) -> Outcome<(Outputs, Option<Path>)> {
    let engine = match args.path.path() {
        Some(_) => adapters::engine(
            args.adapter.as_deref(),
            args.require_adapter,
            args.matrix || args.path.is_matrix(),
        )?,
        None => None,
    };
    let (Some(engine), Some(path)) = (engine, args.path.path()) else {
        if args.explain {
            println!("plan for {problem}\n  path    reference (float64, CPU)");
        }
        return Ok((attend(problem, &data.inputs())?, None));
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
