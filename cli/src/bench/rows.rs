//! What one run of the bench says: rows, and where they come from.

use heedful::bench::{Buffers, Clock, Limit, Measurement, Roofline};
use heedful::verify::report::{Host, Report};
use heedful::{Capabilities, Engine};
use serde::{Deserialize, Serialize};

/// How a row ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// Right, and timed.
    Ok,
    /// Wrong: never timed.
    Wrong,
    /// The device failed.
    Failed,
    /// Not tried; the reason says why.
    Skipped,
}

/// One workload on one path: one line of a table, one record of a CSV file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// Sizes, as `batch x heads x rows x dim`.
    pub(crate) shape: String,
    /// Everything but the sizes.
    pub(crate) features: String,
    pub(crate) path: String,
    /// Keys of the kernel variants.
    pub(crate) kernel: String,
    pub(crate) verdict: Verdict,
    /// Why it was not timed; empty in an `ok` row.
    pub(crate) reason: String,
    pub(crate) median_ms: Option<f64>,
    pub(crate) min_ms: Option<f64>,
    /// Median of the distances from the median.
    pub(crate) spread_ms: Option<f64>,
    pub(crate) runs: Option<usize>,
    pub(crate) clock: Option<Clock>,
    pub(crate) buffers: Option<Buffers>,
    /// Work by the cost model, 10⁹ FLOP.
    pub(crate) gflop: f64,
    /// What tiles really multiply, where the model is a convention, 10⁹ FLOP.
    #[serde(default)]
    pub(crate) done_gflop: Option<f64>,
    /// Bytes that any implementation must move, 10⁶.
    pub(crate) megabytes: f64,
    pub(crate) gflops: Option<f64>,
    pub(crate) gbps: Option<f64>,
    /// Of the plain tiled matrix product in the same run.
    pub(crate) of_matmul: Option<f64>,
    /// Of what multiply-adds in f32 reach.
    #[serde(default)]
    pub(crate) of_f32: Option<f64>,
    /// Of what the adapter's matrix units reach, on the paths that use them.
    #[serde(default)]
    pub(crate) of_matrix: Option<f64>,
    /// Of the rate of our fastest path for the forward pass of the same call.
    #[serde(default)]
    pub(crate) of_forward: Option<f64>,
    /// The median divided by that of our fastest path for the same call.
    pub(crate) of_best: Option<f64>,
    /// The least time that the measured rates of the device allow.
    pub(crate) limit_ms: Option<f64>,
    /// What sets it.
    pub(crate) limit: Option<Limit>,
    /// That least time divided by the median.
    pub(crate) of_limit: Option<f64>,
    pub(crate) dispatches: Option<usize>,
    /// Memory beyond inputs and outputs.
    pub(crate) workspace_bytes: u64,
    /// Planning where it compiled kernels: composing, compiling and the self-test.
    pub(crate) first_use_ms: Option<f64>,
    pub(crate) max_abs: Option<f64>,
    /// Largest error divided by what is allowed.
    pub(crate) tolerance_ratio: Option<f64>,
}

impl Row {
    /// A row without a time.
    pub(crate) fn new(name: &str, shape: String, features: String, path: String) -> Self {
        Self {
            name: name.into(),
            shape,
            features,
            path,
            kernel: String::new(),
            verdict: Verdict::Skipped,
            reason: String::new(),
            median_ms: None,
            min_ms: None,
            spread_ms: None,
            runs: None,
            clock: None,
            buffers: None,
            gflop: 0.0,
            done_gflop: None,
            megabytes: 0.0,
            gflops: None,
            gbps: None,
            of_matmul: None,
            of_f32: None,
            of_matrix: None,
            of_forward: None,
            of_best: None,
            limit_ms: None,
            limit: None,
            of_limit: None,
            dispatches: None,
            workspace_bytes: 0,
            first_use_ms: None,
            max_abs: None,
            tolerance_ratio: None,
        }
    }

    /// Takes a time over, with the rates that follow from it.
    pub(crate) fn timed(&mut self, time: &Measurement) {
        self.verdict = Verdict::Ok;
        self.median_ms = Some(time.median_ms);
        self.min_ms = Some(time.min_ms);
        self.spread_ms = Some(time.spread_ms);
        self.runs = Some(time.runs);
        self.clock = Some(time.clock);
        self.gflops = Some(self.gflop / time.median_ms * 1e3);
        self.gbps = Some(self.megabytes / time.median_ms);
    }

    /// The shape and what is special about the call.
    pub(crate) fn call(&self) -> String {
        format!("{} {}", self.shape, self.features)
    }
}

/// The plain f32 matrix product of the same tile kernel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct MatmulRow {
    pub(crate) shape: String,
    pub(crate) time: Measurement,
    pub(crate) gflops: f64,
}

/// Where results come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Provenance {
    /// Version of this program.
    pub(crate) heedful: String,
    /// Git revision it was built from, empty when unknown.
    pub(crate) revision: String,
    /// When the run began, UTC.
    pub(crate) date: String,
    pub(crate) host: Host,
    pub(crate) adapter: String,
    pub(crate) driver: String,
    pub(crate) backend: String,
    /// What the device can do, as planning sees it.
    pub(crate) capabilities: Option<Capabilities>,
    pub(crate) suite: String,
    /// The options of the run.
    pub(crate) options: Vec<String>,
    /// The device's measured limits.
    pub(crate) roofline: Option<Roofline>,
    pub(crate) matmul: Option<MatmulRow>,
}

impl Provenance {
    pub(crate) fn new(suite: &str, options: Vec<String>, engine: Option<&Engine>) -> Self {
        let Report { heedful, revision, date, host, .. } = Report::new(env!("HEEDFUL_REVISION"));
        let caps = engine.map(Engine::capabilities);
        let of = |text: fn(&Capabilities) -> &String| caps.map(text).cloned();
        Self {
            heedful,
            revision,
            date,
            host,
            adapter: of(|x| &x.name).unwrap_or("none: float64 reference on the CPU".into()),
            driver: of(|x| &x.driver).unwrap_or_default(),
            backend: of(|x| &x.backend).unwrap_or("reference".into()),
            capabilities: caps.cloned(),
            suite: suite.into(),
            options,
            roofline: None,
            matmul: None,
        }
    }

    /// Adapter, backend and driver on one line.
    pub(crate) fn device(&self) -> String {
        format!("{} ({}) {}", self.adapter, self.backend, self.driver).trim_end().to_owned()
    }
}

/// Everything one run of the bench says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    #[serde(flatten)]
    pub(crate) provenance: Provenance,
    pub(crate) rows: Vec<Row>,
}
