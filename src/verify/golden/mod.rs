//! Recorded cases: inputs and results of other implementations, read from folders.
//!
//! A suite is a folder with `cases.json` and one `.npz` per case. A case of kind `attention` becomes
//! an [`Attention`] call with its data and what is expected of it; any other is
//! [`Support::Unsupported`] with the reason. Gradients (roles `d_…`) are not compared; the other
//! roles of the same case are.

mod attributes;
mod expected;
mod gradients;
mod layer_gradients;
mod layers;
mod load;
mod reader;
mod rotary;
mod run;

pub use gradients::{ExpectedGradient, GradientCase};
pub use layer_gradients::LayerGradientCase;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::layer::{HostWeights, MultiHeadAttention};
use crate::problem::{Attention, Operand};
use crate::reference::{Outputs, prepare};
use crate::tensor::Shape;
use crate::verify::compare::{Comparison, Tolerance, compare};
use crate::verify::data::CaseData;

/// A folder of recorded cases.
#[derive(Debug, Clone)]
pub struct GoldenSuite {
    /// Name of the folder.
    pub name: String,
    /// Its cases, in the order of `cases.json`.
    pub cases: Vec<GoldenCase>,
}

/// One recorded case, its arrays not yet read.
#[derive(Debug, Clone)]
pub struct GoldenCase {
    /// Name, unique in its suite.
    pub name: String,
    /// What produced the expected values: package, version, function.
    pub source: String,
    path: PathBuf,
    record: Record,
}

/// The precision in which a case is meant to be computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Precision {
    /// float64 throughout: inputs as recorded, and the recorded tolerance.
    Double,
    /// The storage type of the kernels: q, k and v rounded to it, tables to f32. A case recorded in
    /// f64 is run in f32 with its `tolerance_f32`; where it has none, with rtol and atol of at least
    /// 1e-4 and 1e-5, which is what casting the inputs costs.
    Stored,
}

/// Whether a recorded case can be run here.
#[derive(Debug, Clone)]
pub enum Support {
    /// It can: the call, its data and what is expected.
    Supported(Box<Loaded>),
    /// It cannot, for this reason.
    Unsupported(String),
}

/// A recorded case, ready to run.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The call; it asks for lse and weights where those are recorded.
    pub attention: Attention,
    /// Its tensors; past keys and values are in front of k and v.
    pub data: CaseData,
    /// What is expected.
    pub expected: Vec<Expected>,
    /// What was done to the case to run it here, and what of it is not compared.
    pub notes: Vec<String>,
    /// What the call is a part of.
    pub form: Form,
    /// (source, destination) of the edges in whose order weights are recorded.
    pub edges: Option<Vec<[u32; 2]>>,
}

/// What a recorded case is.
#[derive(Debug, Clone)]
pub enum Form {
    /// One attention call.
    Attention,
    /// A layer around the call.
    Layer(Box<LayerCase>),
    /// Only the rotation of q.
    Rotation,
}

/// A layer with its inputs; tables and masks are the call's.
#[derive(Debug, Clone)]
pub struct LayerCase {
    /// The layer.
    pub layer: MultiHeadAttention,
    /// Input for queries.
    pub x_q: Vec<f64>,
    /// Input for keys.
    pub x_k: Vec<f64>,
    /// Input for values.
    pub x_v: Vec<f64>,
    /// Its learned tensors.
    pub weights: HostWeights,
}

/// A recorded result.
#[derive(Debug, Clone, PartialEq)]
pub struct Expected {
    /// Which output it is.
    pub role: Role,
    /// Its values, without gaps.
    pub values: Vec<f64>,
    /// How near they must be met.
    pub tolerance: Tolerance,
}

/// The outputs that recorded cases hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// o.
    Out,
    /// Log-sum-exp.
    Lse,
    /// Weights, or scores from another point.
    Weights,
    /// Past and new keys, concatenated.
    PresentK,
    /// Past and new values, concatenated.
    PresentV,
}

impl Role {
    /// The name of the role in `cases.json` (weights may be called `scores` there).
    pub fn name(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::Lse => "lse",
            Self::Weights => "weights",
            Self::PresentK => "present_k",
            Self::PresentV => "present_v",
        }
    }
}

impl GoldenSuite {
    /// Reads `cases.json` of a folder.
    ///
    /// # Errors
    /// An invalid-argument error that names the file, and the case whose entry is malformed.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("cases.json");
        let file = path.display().to_string();
        let text = std::fs::read_to_string(&path)
            .map_err(|e| Error::invalid(&file, e, "a readable list of cases"))?;
        let entries: Vec<Value> = serde_json::from_str(&text)
            .map_err(|e| Error::invalid(&file, e, "a JSON list of cases"))?;
        let cases = entries.into_iter().enumerate().map(|(i, entry)| {
            let record: Record = serde_json::from_value(entry)
                .map_err(|e| Error::invalid(format!("{file}, case {i}"), e, "a recorded case"))?;
            if Path::new(&record.file).file_name() != Some(record.file.as_ref()) {
                let argument = format!("{file}, case {i}, file");
                return Err(Error::invalid(argument, &record.file, "a name in the same folder"));
            }
            let path = folder.join(&record.file);
            let (name, source) = (record.name.clone(), record.source.clone());
            Ok(GoldenCase { name, source, path, record })
        });
        let name = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        let name = name.file_name().map(|name| name.to_string_lossy().into_owned());
        Ok(Self { name: name.unwrap_or_default(), cases: cases.collect::<Result<_>>()? })
    }
}

impl GoldenCase {
    /// Reads the arrays of the case.
    ///
    /// # Errors
    /// An invalid-argument error that names the file and what is wrong in it.
    pub fn load(&self, precision: Precision) -> Result<Support> {
        load::load(self, precision)
    }
}

impl Loaded {
    /// Compares outputs (gapless, as the reference yields them) with every recorded role.
    pub fn check(&self, found: &Outputs) -> Vec<(Role, Comparison)> {
        let s = self.attention.shape;
        // The cache holds keys as they meet the queries.
        let problem = self.attention.validate().ok();
        let keys = problem.and_then(|p| prepare(&p, &self.data.inputs(), Operand::K, |x| x));
        let weights = found.weights.as_deref().unwrap_or_default();
        let by_edge = self.edges.as_ref().map(|edges| edge_weights(weights, edges, s));
        let check = |expected: &Expected| {
            let (found, row_len): (&[f64], u32) = match expected.role {
                Role::Out => (&found.o, s.dim_v),
                Role::Lse => (&found.lse, 1),
                Role::Weights => (by_edge.as_deref().unwrap_or(weights), s.seq_kv),
                Role::PresentK => (keys.as_ref().unwrap_or(&self.data.k), s.dim_qk),
                Role::PresentV => (&self.data.v, s.dim_v),
            };
            let comparison =
                compare(&expected.values, found, row_len as usize, &expected.tolerance);
            (expected.role, comparison)
        };
        self.expected.iter().map(check).collect()
    }
}

/// Weights `[edges, heads]` out of `[1, heads, nodes, nodes]`.
fn edge_weights(weights: &[f64], edges: &[[u32; 2]], s: Shape) -> Vec<f64> {
    let index = |head: u32, [source, destination]: [u32; 2]| {
        (head * s.seq_q + destination) as usize * s.seq_kv as usize + source as usize
    };
    let pairs = edges.iter().flat_map(|edge| (0..s.heads_q).map(move |head| (head, *edge)));
    pairs.filter_map(|(head, edge)| weights.get(index(head, edge)).copied()).collect()
}

/// An entry of `cases.json`; other keys are ignored.
#[derive(Debug, Clone, Deserialize)]
struct Record {
    name: String,
    file: String,
    #[serde(default)]
    source: String,
    #[serde(default = "attention")]
    kind: String,
    dtype: String,
    #[serde(default)]
    layout: String,
    #[serde(default)]
    attributes: Map<String, Value>,
    inputs: BTreeMap<String, String>,
    expected: BTreeMap<String, String>,
    tolerance: Limits,
    tolerance_f32: Option<Limits>,
}

#[derive(Debug, Clone, Deserialize)]
struct Limits {
    #[serde(flatten)]
    all: Limit,
    #[serde(default)]
    roles: BTreeMap<String, Limit>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
struct Limit {
    rtol: f64,
    atol: f64,
}

fn attention() -> String {
    "attention".into()
}
