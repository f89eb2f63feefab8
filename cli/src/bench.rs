//! `heedful bench`: times every path on every workload of a suite, each result checked first.

use std::time::{Duration, Instant};

use heedful::bench::{Measurement, Suite, Workload, measure_host, measure_matmul};
use heedful::engine::Matmul;
use heedful::problem::cost;
use heedful::reference::attend;
use heedful::verify::compare::Comparison;
use heedful::verify::data::{CaseData, DataOptions, Lengths};
use heedful::verify::golden::{Form, GoldenSuite, Loaded, Precision, Support};
use heedful::verify::truth::Truth;
use heedful::{Attention, Checks, DType, Engine, Path, Policy, wgpu};
use serde::Serialize;

use crate::args::{BenchArgs, SuiteName};
use crate::table::{progress, step, table, write_json};
use crate::{Failure, Outcome, adapters};

/// Time spent measuring one path on one workload.
const BUDGET: Duration = Duration::from_millis(400);
/// Above this much work the reference checks the last rows only.
const CHECKED_FLOP: u64 = 4_000_000_000;
/// Rows of the last head that are checked then.
const CHECKED_ROWS: u32 = 64;

/// One line of the table.
#[derive(Serialize)]
struct Row {
    name: String,
    shape: String,
    path: String,
    kernel: String,
    /// Planning where it compiled kernels: composing, compiling and the self-test.
    first_use_ms: Option<f64>,
    time: Option<Measurement>,
    gflops: Option<f64>,
    /// Of the plain tiled matrix product in the same run.
    of_matmul: Option<f64>,
    /// Bytes that any implementation must move, per second.
    gbps: Option<f64>,
    workspace_bytes: u64,
    max_abs: Option<f64>,
    /// Largest error divided by what is allowed.
    tolerance_ratio: Option<f64>,
    error: Option<String>,
}

/// Everything one run of the bench says.
#[derive(Serialize)]
struct Record {
    heedful: &'static str,
    adapter: String,
    driver: String,
    backend: String,
    suite: String,
    matmul: Option<MatmulRow>,
    rows: Vec<Row>,
}

/// The plain f32 matrix product of the same tile kernel.
#[derive(Serialize)]
struct MatmulRow {
    shape: String,
    time: Measurement,
    gflops: f64,
}

/// Times the suite.
pub(crate) fn bench(args: &BenchArgs) -> Outcome {
    let suite = match args.suite {
        SuiteName::Quick => Suite::Quick,
        SuiteName::Long => Suite::Long,
        SuiteName::Decode => Suite::Decode,
        SuiteName::Standard => Suite::Standard,
    };
    let mut workloads = suite.workloads();
    workloads.retain(|w| args.filter.as_deref().is_none_or(|text| w.name.contains(text)));
    let engine = adapters::engine(args.adapter.as_deref(), args.require_adapter)?;
    let record = match &engine {
        Some(engine) => on_gpu(args, engine, &workloads)?,
        None => on_reference(args, &workloads)?,
    };
    if args.json.as_deref() != Some("-".as_ref()) {
        print(&record);
    }
    if let Some(path) = &args.json {
        let json = serde_json::to_string_pretty(&record)
            .map_err(|e| heedful::Error::internal("writing JSON", e.to_string()))?;
        write_json(path, &json)?;
    }
    let wrong = record.rows.iter().filter(|row| row.error.is_some()).count();
    if wrong > 0 {
        return Err(Failure::Wrong(format!("{wrong} results were wrong")));
    }
    if record.rows.is_empty() {
        return Err(heedful::Error::invalid("--filter", "no workload", "part of a name").into());
    }
    Ok(())
}

/// The policies that every workload is timed under.
fn policies(args: &BenchArgs) -> Vec<Policy> {
    #[allow(unsafe_code, reason = "the bench's tables and functions are its own")]
    // SAFETY: every table is generated within its tensors, and workloads have no functions of their own.
    let off = unsafe { Checks::off() };
    let checks = if args.unchecked { vec![Checks::ON, off] } else { vec![Checks::ON] };
    let with =
        |path| checks.iter().map(move |&checks| Policy { path, checks, ..Policy::default() });
    [Path::Split, Path::Fused, Path::Staged].into_iter().flat_map(with).collect()
}

fn options(workload: &Workload) -> DataOptions {
    DataOptions {
        density: workload.density,
        lengths: if workload.ragged { Lengths::Mixed } else { Lengths::Full },
        ..DataOptions::default()
    }
}

fn on_gpu(args: &BenchArgs, engine: &Engine, workloads: &[Workload]) -> Outcome<Record> {
    let caps = engine.capabilities();
    let matmul = matmul(engine)?;
    let mut rows = Vec::new();
    let bar = progress(workloads.len() * policies(args).len(), "bench");
    for workload in workloads {
        let problem = workload.attention.validate()?;
        let data = CaseData::generate(&problem, 1, &options(workload));
        let checked = Checked::new(&workload.attention, &data)?;
        for policy in policies(args) {
            step(&bar);
            let name = workload.name;
            let judge = |o: &[f64]| checked.judge(o);
            let row =
                row(engine, name, &workload.attention, &policy, &data, &judge, matmul.gflops)?;
            rows.extend(row);
        }
    }
    bar.finish_and_clear();
    let named = args.filter.as_deref().is_none_or(|text| "sentence-model".contains(text));
    if named && !matches!(args.suite, SuiteName::Long | SuiteName::Decode) {
        rows.extend(real(engine, matmul.gflops)?);
    }
    Ok(Record {
        heedful: env!("CARGO_PKG_VERSION"),
        adapter: caps.name.clone(),
        driver: caps.driver.clone(),
        backend: caps.backend.clone(),
        suite: format!("{:?}", args.suite).to_lowercase(),
        matmul: Some(matmul),
        rows,
    })
}

/// The attention of a real sentence model, where its recorded layers are at hand.
fn real(engine: &Engine, matmul_gflops: f64) -> Outcome<Vec<Row>> {
    let folder = std::path::Path::new("tests/golden/real");
    if !folder.join("cases.json").exists() {
        return Ok(Vec::new());
    }
    let mut rows = Vec::new();
    for case in GoldenSuite::open(folder)?.cases {
        let Support::Supported(loaded) = case.load(Precision::Stored)? else { continue };
        if !matches!(loaded.form, Form::Attention) {
            continue;
        }
        for path in [Path::Fused, Path::Staged] {
            let attention = Attention { weights: None, lse: false, ..loaded.attention.clone() };
            let judge = |o: &[f64]| recorded(&loaded, o);
            let name = format!("sentence-model {}", case.name);
            let policy = Policy { path, ..Policy::default() };
            rows.extend(row(
                engine,
                &name,
                &attention,
                &policy,
                &loaded.data,
                &judge,
                matmul_gflops,
            )?);
        }
    }
    Ok(rows)
}

/// Compares o with what the model itself computed.
fn recorded(loaded: &Loaded, o: &[f64]) -> Comparison {
    use heedful::verify::compare::compare;
    use heedful::verify::golden::Role;
    let row_len = loaded.attention.shape.dim_v as usize;
    match loaded.expected.iter().find(|e| e.role == Role::Out) {
        Some(expected) => compare(&expected.values, o, row_len, &expected.tolerance),
        None => compare(
            &[],
            o,
            row_len,
            &heedful::verify::compare::Tolerance::Recorded { rtol: 0.0, atol: 0.0 },
        ),
    }
}

/// What a workload's o is compared with: all of it, or the last rows of its last head.
struct Checked {
    truth: Truth,
    sampled: bool,
}

impl Checked {
    fn new(attention: &Attention, data: &CaseData) -> Outcome<Self> {
        let problem = attention.validate()?;
        let s = attention.shape;
        if cost::flops(&problem, &data.operands()) <= CHECKED_FLOP {
            return Ok(Self { truth: Truth::measure(&problem, &data.inputs())?, sampled: false });
        }
        // The last rows of the last query head as a problem of their own: later rows shift the
        // diagonal, and workloads this large have no masks given as data.
        let rows = s.seq_q.min(CHECKED_ROWS);
        let shift = (s.seq_q - rows) as i32;
        let shape = heedful::Shape { batch: 1, heads_q: 1, heads_kv: 1, seq_q: rows, ..s };
        let mut part = Attention { shape, ..attention.clone() };
        part.causal = attention.causal.map(|_| heedful::Align::Offset(shift));
        part.window = attention.window.map(|(w, _)| (w, heedful::Align::Offset(shift)));
        let tail = |values: &[f64], n: u32, dim: u32| {
            values[values.len() - n as usize * dim as usize..].to_vec()
        };
        let (q, k, v) = (
            tail(&data.q, rows, s.dim_qk),
            tail(&data.k, s.seq_kv, s.dim_qk),
            tail(&data.v, s.seq_kv, s.dim_v),
        );
        let inputs =
            heedful::reference::Inputs { q: &q, k: &k, v: &v, operands: Default::default() };
        Ok(Self { truth: Truth::measure(&part.validate()?, &inputs)?, sampled: true })
    }

    fn judge(&self, o: &[f64]) -> Comparison {
        let n = self.truth.outputs.o.len();
        self.truth.check_o(if self.sampled { &o[o.len() - n..] } else { o })
    }
}

/// Checks, then times, one path on one workload; `None` where the path does not serve it.
fn row(
    engine: &Engine,
    name: &str,
    attention: &Attention,
    policy: &Policy,
    data: &CaseData,
    judge: &dyn Fn(&[f64]) -> Comparison,
    matmul_gflops: f64,
) -> Outcome<Option<Row>> {
    let compiled = engine.compiled_kernels();
    let start = Instant::now();
    let plan = match engine.plan_with(attention, policy) {
        Err(error) if error.is_unsupported() => return Ok(None),
        plan => plan?,
    };
    engine.prepare(&plan)?;
    let first_use = start.elapsed().as_secs_f64() * 1e3;
    let kernels: Vec<String> = plan.kernels().iter().map(ToString::to_string).collect();
    let outputs = engine.run_host(&plan, &data.inputs())?;
    let comparison = judge(&outputs.o);
    let mut row = Row {
        name: name.into(),
        shape: format!("{} {}", attention.shape, plan.problem().feature_text()),
        path: format!("{}{}", policy.path, if policy.checks.are_off() { " unchecked" } else { "" }),
        kernel: kernels.join(" "),
        first_use_ms: (engine.compiled_kernels() > compiled).then_some(first_use),
        time: None,
        gflops: None,
        of_matmul: None,
        gbps: None,
        workspace_bytes: plan.workspace_bytes(),
        max_abs: Some(comparison.max_abs),
        tolerance_ratio: Some(comparison.tolerance_ratio).filter(|ratio| ratio.is_finite()),
        error: (!comparison.pass).then(|| comparison.message()),
    };
    // A wrong result has no time.
    if row.error.is_none() {
        let time = measure_host(engine, &plan, &data.inputs(), BUDGET)?;
        let flops = cost::flops(plan.problem(), &data.operands()) as f64;
        let gflops = flops / time.median_ms / 1e6;
        row.gflops = Some(gflops);
        row.of_matmul = Some(gflops / matmul_gflops);
        let bytes = cost::min_bytes(plan.problem(), &data.operands()) as f64;
        row.gbps = Some(bytes / time.median_ms / 1e6);
        row.time = Some(time);
    }
    Ok(Some(row))
}

fn upload(engine: &Engine, bytes: &[u8]) -> wgpu::Buffer {
    let buffer = engine.device().create_buffer(&wgpu::BufferDescriptor {
        label: Some("bench"),
        size: (bytes.len().max(1) as u64).next_multiple_of(16),
        usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().next_multiple_of(4), 0);
    engine.queue().write_buffer(&buffer, 0, &padded);
    buffer
}

fn matmul(engine: &Engine) -> Outcome<MatmulRow> {
    let n = if engine.capabilities().device_type == "cpu" { 512 } else { 4096 };
    let values = DType::F32.encode((0..n * n).map(|i| f64::from(i % 7) - 3.0));
    let (a, b, c) = (upload(engine, &values), upload(engine, &values), upload(engine, &values));
    let matmul = Matmul::new(engine, [1, n, n, n], &a, &b, &c)?;
    let time = measure_matmul(engine, &matmul, BUDGET)?;
    let gflops = matmul.flops() as f64 / time.median_ms / 1e6;
    Ok(MatmulRow { shape: format!("{n}x{n}x{n} f32"), time, gflops })
}

fn on_reference(args: &BenchArgs, workloads: &[Workload]) -> Outcome<Record> {
    let mut rows = Vec::new();
    for workload in workloads {
        let problem = workload.attention.validate()?;
        let data = CaseData::generate(&problem, 1, &options(workload));
        let start = Instant::now();
        attend(&problem, &data.inputs())?;
        let ms = start.elapsed().as_secs_f64() * 1e3;
        rows.push(Row {
            name: workload.name.into(),
            shape: format!("{} {}", workload.attention.shape, problem.feature_text()),
            path: "reference".into(),
            kernel: "float64 on the CPU".into(),
            first_use_ms: None,
            time: Some(Measurement {
                median_ms: ms,
                min_ms: ms,
                spread_ms: 0.0,
                runs: 1,
                clock: heedful::bench::Clock::Wall,
            }),
            gflops: Some(cost::flops(&problem, &data.operands()) as f64 / ms / 1e6),
            of_matmul: None,
            gbps: None,
            workspace_bytes: 0,
            max_abs: Some(0.0),
            tolerance_ratio: Some(0.0),
            error: None,
        });
    }
    Ok(Record {
        heedful: env!("CARGO_PKG_VERSION"),
        adapter: "none: float64 reference on the CPU".into(),
        driver: String::new(),
        backend: "reference".into(),
        suite: format!("{:?}", args.suite).to_lowercase(),
        matmul: None,
        rows,
    })
}

fn print(record: &Record) {
    println!("{} ({}) {}", record.adapter, record.backend, record.driver);
    if let Some(m) = &record.matmul {
        let (ms, gflops, clock) = (m.time.median_ms, m.gflops, m.time.clock);
        println!(
            "plain tiled matmul {}: {ms:.2} ms, {gflops:.1} GFLOP/s ({clock:?} clock)",
            m.shape
        );
    }
    let header = [
        "case",
        "shape",
        "path",
        "ms",
        "± ms",
        "GFLOP/s",
        "of matmul",
        "GB/s",
        "scratch KiB",
        "first ms",
        "max error",
        "of allowed",
        "verdict",
    ];
    let mut lines = table(&header, 3);
    for row in &record.rows {
        let number =
            |x: Option<f64>, digits: usize| x.map_or("-".into(), |x| format!("{x:.digits$}"));
        let percent = row.of_matmul.map_or("-".into(), |x| format!("{:.0} %", x * 100.0));
        let verdict = if row.error.is_some() { "FAILED" } else { "ok" };
        lines.add_row([
            row.name.clone(),
            row.shape.clone(),
            row.path.clone(),
            number(row.time.map(|t| t.median_ms), 2),
            number(row.time.map(|t| t.spread_ms), 2),
            number(row.gflops, 1),
            percent,
            number(row.gbps, 1),
            (row.workspace_bytes >> 10).to_string(),
            number(row.first_use_ms, 0),
            row.max_abs.map_or("-".into(), |x| format!("{x:.1e}")),
            number(row.tolerance_ratio, 2),
            verdict.into(),
        ]);
    }
    println!("{lines}");
    for row in &record.rows {
        if let Some(error) = &row.error {
            println!("FAILED {} {}: {error}", row.name, row.path);
        }
    }
}
