//! Rows on an adapter: plan, check, time, hold against the device's limits.

use std::path::Path as FilePath;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use heedful::bench::{Buffers, Roofline, Workload, measure_host, measure_matmul};
use heedful::engine::Matmul;
use heedful::plan::MAX_ROWS;
use heedful::plan::tuning::tile_is_slower;
use heedful::verify::compare::Comparison;
use heedful::verify::data::CaseData;
use heedful::verify::golden::{Form, GoldenSuite, Precision, Support};
use heedful::{Attention, Checks, DType, Engine, Path, Policy, Problem, wgpu};

use super::check::{Checked, recorded};
use super::rows::{MatmulRow, Provenance, Record, Row, Verdict};
use crate::args::BenchArgs;
use crate::table::Progress;
use crate::{Outcome, adapters};

/// Rows of a recorded sentence model, which the default suites end with.
pub(super) const MODEL: &str = "sentence-model";

/// Work above which a software adapter is spared a workload, GFLOP: minutes for a row.
const SOFTWARE_GFLOP: f64 = 200.0;

/// Rows, keys or columns of a tile of the staged path, and what it multiplies at a time.
const TILE: u32 = heedful::kernel::TILE;
const STEP: u32 = 16;

/// One run of the bench on an adapter.
pub(super) struct Session<'a> {
    pub(super) args: &'a BenchArgs,
    pub(super) engine: Engine,
    provenance: Provenance,
    pub(super) roofline: Roofline,
    pub(super) matmul_gflops: f64,
    /// Set by Ctrl-C.
    stop: &'a AtomicBool,
}

/// A call with its tensors, and how its result is judged.
struct Call<'a> {
    name: &'a str,
    attention: &'a Attention,
    data: &'a CaseData,
    judge: &'a dyn Fn(Path, &[f64]) -> heedful::Result<Comparison>,
    bar: &'a Progress,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        args: &'a BenchArgs,
        engine: Engine,
        provenance: Provenance,
        stop: &'a AtomicBool,
    ) -> Outcome<Self> {
        let roofline = Roofline::measure(&engine)?;
        let matmul = matmul(&engine, args.budget())?;
        let matmul_gflops = matmul.gflops;
        let (measured, matmul) = (Some(roofline), Some(matmul));
        let provenance = Provenance { roofline: measured, matmul, ..provenance };
        Ok(Self { args, engine, provenance, roofline, matmul_gflops, stop })
    }

    pub(super) fn run(mut self, workloads: &[Workload]) -> Outcome<Record> {
        let mut rows = Vec::new();
        let policies = self.policies()?;
        let bar = Progress::new(workloads.len(), "bench");
        for workload in workloads {
            if self.stopped() {
                break;
            }
            bar.step(&format!("{}: making tensors", workload.name));
            let problem = workload.attention.validate()?;
            if let Some(row) = self.too_large(workload) {
                rows.push(row);
                continue;
            }
            let data = CaseData::generate(&problem, 1, &workload.data);
            let checked = Checked::new(&problem, &data)?;
            let judge = |path: Path, o: &[f64]| checked.judge(path, o);
            let (name, attention) = (workload.name.as_str(), &workload.attention);
            let call = Call { name, attention, data: &data, judge: &judge, bar: &bar };
            let before = rows.len();
            for policy in &policies {
                if self.pays(&call, policy) {
                    rows.extend(self.row(&call, policy)?);
                }
            }
            if self.args.times_gradients() {
                let gradients = self.gradients(workload, &data, &rows[before..], &bar)?;
                rows.extend(gradients);
            }
        }
        let named = self.args.filter.as_deref().is_none_or(|text| MODEL.contains(text));
        let suite = self.args.definitions.is_none() && self.args.suite.has_model();
        if named && suite {
            rows.extend(self.model(&policies, &bar)?);
        }
        drop(bar);
        Ok(Record { provenance: self.provenance, rows })
    }

    /// The policies that every workload is timed under.
    fn policies(&self) -> Outcome<Vec<Policy>> {
        #[allow(unsafe_code, reason = "the bench's tables and functions are its own")]
        // SAFETY: every table is generated within its tensors, and workloads have no functions of their own.
        let off = unsafe { Checks::off() };
        let checks = if self.args.unchecked { vec![Checks::ON, off] } else { vec![Checks::ON] };
        let tuning = self.args.tuning.as_deref().map(crate::tune::read).transpose()?;
        let with = |path| {
            let tuning = tuning.clone();
            checks.iter().map(move |&checks| Policy {
                path,
                checks,
                tuning: tuning.clone(),
                ..Policy::default()
            })
        };
        // The tile is many times slower on software drivers, and would take most of the run's time there.
        let slow_tile = tile_is_slower(self.engine.capabilities()).is_some();
        let wanted = |path: &Path| match self.args.path {
            Some(only) => only.path() == Some(*path),
            None => *path != Path::FusedTile || !slow_tile,
        };
        let matrix = self.args.uses_matrix();
        let served = Path::ALL.iter().filter(|path| matrix || !path.is_matrix());
        let paths = served.copied().filter(wanted);
        Ok(paths.flat_map(with).collect())
    }

    /// Whether a row is worth its time: many rows are split on tiles, which are slow on software drivers.
    fn pays(&self, call: &Call<'_>, policy: &Policy) -> bool {
        let tiles = policy.path == Path::Split && call.attention.shape.seq_q > MAX_ROWS;
        !tiles || self.args.path.is_some() || tile_is_slower(self.engine.capabilities()).is_none()
    }

    /// Work above which the adapter is spared a row.
    pub(super) fn most_gflop(&self) -> f64 {
        let software = self.engine.capabilities().device_type == "cpu";
        let default = if software { SOFTWARE_GFLOP } else { f64::INFINITY };
        self.args.max_gflop.unwrap_or(default)
    }

    /// A row for a workload that the adapter is spared.
    fn too_large(&self, workload: &Workload) -> Option<Row> {
        let limit = self.most_gflop();
        let problem = workload.attention.validate().ok()?;
        // Without tables every sequence counts as full.
        let plain = Attention {
            kv_lengths: false,
            q_lengths: false,
            packed: None,
            ..workload.attention.clone()
        };
        let gflop = plain.validate().ok()?.flops(&Default::default()) as f64 / 1e9;
        if gflop <= limit {
            return None;
        }
        let shape = workload.attention.shape.to_string();
        let mut row = Row::new(&workload.name, shape, problem.feature_text(), "-".into());
        row.gflop = gflop;
        row.reason = format!("{gflop:.0} GFLOP, more than --max-gflop {limit:.0}");
        Some(row)
    }

    /// The attention of a real sentence model, where its recorded layers are at hand.
    fn model(&mut self, policies: &[Policy], bar: &Progress) -> Outcome<Vec<Row>> {
        let folder = FilePath::new("tests/golden/real");
        if !folder.join("cases.json").exists() {
            return Ok(Vec::new());
        }
        let mut rows = Vec::new();
        for case in GoldenSuite::open(folder)?.cases {
            let Support::Supported(loaded) = case.load(Precision::Stored)? else { continue };
            if !matches!(loaded.form, Form::Attention) {
                continue;
            }
            let attention = Attention { weights: None, lse: false, ..loaded.attention.clone() };
            let judge = |_: Path, o: &[f64]| Ok(recorded(&loaded, o));
            let name = format!("{MODEL} {}", case.name);
            let call =
                Call { name: &name, attention: &attention, data: &loaded.data, judge: &judge, bar };
            for policy in policies {
                rows.extend(self.row(&call, policy)?);
            }
        }
        Ok(rows)
    }

    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Checks, then times, one path on one call; `None` where the path does not serve it, or Ctrl-C came before the
    /// row was whole.
    fn row(&mut self, call: &Call<'_>, policy: &Policy) -> Outcome<Option<Row>> {
        if self.stopped() {
            return Ok(None);
        }
        let problem = call.attention.validate()?;
        let unchecked = if policy.checks.are_off() { " unchecked" } else { "" };
        let path = format!("{}{unchecked}", policy.path);
        let shape = call.attention.shape.to_string();
        let mut row = Row::new(call.name, shape, problem.feature_text(), path);
        row.gflop = problem.flops(&call.data.operands()) as f64 / 1e9;
        row.megabytes = problem.min_bytes(&call.data.operands()) as f64 / 1e6;
        let padded = row.gflop * padding(&problem, policy.path);
        if padded > self.most_gflop() {
            let most = self.most_gflop();
            row.reason = format!(
                "{padded:.0} GFLOP in tiles that are mostly empty, more than --max-gflop {most:.0}"
            );
            return Ok(Some(row));
        }
        let filled = self.fill(&mut row, call, policy);
        self.ended(filled, row)
    }

    /// A row that is whole, or says why it is not; `None` where the path does not serve the call.
    pub(super) fn ended(
        &mut self,
        filled: heedful::Result<bool>,
        mut row: Row,
    ) -> Outcome<Option<Row>> {
        match filled {
            Ok(whole) => Ok(whole.then_some(row)),
            Err(error) if error.is_unsupported() => Ok(None),
            Err(error) if error.is_invalid() => Err(error.into()),
            Err(error) => {
                row.verdict = Verdict::Failed;
                row.reason = error.to_string();
                if error.is_device_lost() {
                    // The next row gets a new device.
                    if let Some(engine) = adapters::engine(
                        self.args.adapter.as_deref(),
                        true,
                        self.args.uses_matrix(),
                    )? {
                        self.engine = engine;
                    }
                }
                Ok(Some(row))
            }
        }
    }

    /// Whether the row is whole.
    fn fill(&self, row: &mut Row, call: &Call<'_>, policy: &Policy) -> heedful::Result<bool> {
        let engine = &self.engine;
        let begins = |what: &str| call.bar.within(&format!("{}, {}: {what}", call.name, row.path));
        begins("compiling");
        let compiled = engine.compiled_kernels();
        let start = Instant::now();
        let plan = engine.plan_with(call.attention, policy)?;
        engine.prepare(&plan)?;
        let first_use = start.elapsed().as_secs_f64() * 1e3;
        row.first_use_ms = (engine.compiled_kernels() > compiled).then_some(first_use);
        let kernels: Vec<String> = plan.kernels().iter().map(ToString::to_string).collect();
        row.kernel = kernels.join(" ");
        row.workspace_bytes = plan.workspace_bytes();
        if self.stopped() {
            return Ok(false);
        }
        begins("first run");
        let o = engine.run_host(&plan, &call.data.inputs())?.o;
        begins("checking with the float64 reference");
        let comparison = (call.judge)(policy.path, &o)?;
        row.max_abs = Some(comparison.max_abs);
        row.tolerance_ratio = Some(comparison.tolerance_ratio).filter(|ratio| ratio.is_finite());
        if !comparison.pass {
            // A wrong result has no time.
            row.verdict = Verdict::Wrong;
            row.reason = comparison.message();
            return Ok(true);
        }
        if self.stopped() {
            return Ok(false);
        }
        begins("timing");
        let buffers = self.args.buffers();
        let inputs = call.data.inputs();
        let (time, dispatches) = measure_host(engine, &plan, &inputs, buffers, self.args.budget())?;
        row.timed(&time);
        row.buffers = Some(buffers);
        row.dispatches = Some(dispatches);
        let cached = buffers == Buffers::Same;
        shares(row, &self.roofline, self.matmul_gflops, policy.path, cached);
        Ok(true)
    }
}

/// Holds a row that is timed against the device's rates.
pub(super) fn shares(
    row: &mut Row,
    roofline: &Roofline,
    matmul_gflops: f64,
    path: Path,
    cached: bool,
) {
    let of = |rate: f64| row.gflops.map(|gflops| gflops / rate);
    let units = roofline.matrix_gflops.filter(|_| path.is_matrix());
    let shares = (of(matmul_gflops), of(roofline.f32_gflops), units.and_then(of));
    (row.of_matmul, row.of_f32, row.of_matrix) = shares;
    let (flops, bytes) = (row.gflop * 1e9, row.megabytes * 1e6);
    let dispatches = row.dispatches.unwrap_or(1);
    let (limit_ms, limit) = roofline.bound(path, flops, bytes, dispatches, cached);
    row.limit_ms = Some(limit_ms);
    row.limit = Some(limit);
    row.of_limit = row.median_ms.map(|ms| limit_ms / ms);
}

/// How many times as much as is asked for a path multiplies, since its tiles are whole: many heads of few rows and keys
/// are nearly all padding on the staged path.
fn padding(problem: &Problem, path: Path) -> f64 {
    if !matches!(path, Path::Staged | Path::StagedMatrix) {
        return 1.0;
    }
    let s = problem.attention().shape;
    let up = |n: u32, to: u32| f64::from(n.max(1).div_ceil(to)) * f64::from(to);
    let tiles = up(s.seq_q, TILE)
        * (up(s.seq_kv, TILE) * up(s.dim_qk, STEP) + up(s.seq_kv, STEP) * up(s.dim_v, TILE));
    let asked = f64::from(s.seq_q.max(1))
        * f64::from(s.seq_kv.max(1))
        * f64::from(s.dim_qk + s.dim_v).max(1.0);
    tiles / asked
}

fn upload(engine: &Engine, bytes: &[u8]) -> wgpu::Buffer {
    let buffer = engine.device().create_buffer(&wgpu::BufferDescriptor {
        label: Some("bench"),
        size: bytes.len() as u64,
        usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    engine.queue().write_buffer(&buffer, 0, bytes);
    buffer
}

/// The plain tiled matrix product that results are held against as well.
fn matmul(engine: &Engine, budget: Duration) -> Outcome<MatmulRow> {
    let n = if engine.capabilities().device_type == "cpu" { 512 } else { 4096 };
    let values = DType::F32.encode((0..n * n).map(|i| f64::from(i % 7) - 3.0));
    let (a, b, c) = (upload(engine, &values), upload(engine, &values), upload(engine, &values));
    let matmul = Matmul::new(engine, [1, n, n, n], &a, &b, &c)?;
    let time = measure_matmul(engine, &matmul, budget)?;
    let gflops = matmul.flops() as f64 / time.median_ms / 1e6;
    Ok(MatmulRow { shape: format!("{n}x{n}x{n} f32"), time, gflops })
}
