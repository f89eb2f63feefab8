//! The recorded gradients of a case: roles `d_…`.

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::feature::normalize::Normalizer;
use crate::plan::{Path, Policy};
use crate::problem::{Backward, Operand};
use crate::reference::{Gradients, Incoming};
use crate::verify::compare::{Comparison, Tolerance, compare};
use crate::verify::golden::reader::Reader;
use crate::verify::golden::{Form, GoldenCase, Loaded, Precision, Support};
use crate::verify::npy::{Array, Arrays};
use crate::verify::run::{Outcome, Ran, reasons};

/// A recorded case with the gradients of its tensors.
#[derive(Debug, Clone)]
pub struct GradientCase {
    /// The call and the gradients that are recorded.
    pub backward: Backward,
    /// The call's data and outputs.
    pub loaded: Loaded,
    /// Gradient of o, `[batch, heads_q, seq_q, dim_v]`.
    pub d_o: Vec<f64>,
    /// Gradient of lse, `[batch, heads_q, seq_q]`; empty where there is none.
    pub d_lse: Vec<f64>,
    /// What is expected.
    pub expected: Vec<ExpectedGradient>,
}

/// A recorded gradient.
#[derive(Debug, Clone)]
pub struct ExpectedGradient {
    /// Whose.
    pub operand: Operand,
    /// Its values, without gaps; those of past keys are not recorded.
    pub values: Vec<f64>,
    /// How near they must be met.
    pub tolerance: Tolerance,
    /// What the gradient of the tensor as it is given here is to be multiplied with: the scale's part that is in it.
    factor: f64,
    /// Rows of a head that come before those that are recorded.
    past: usize,
    /// T5's buckets, where the recorded tensor is their table: how many, both ways, the furthest distance.
    buckets: Option<(u32, bool, u32)>,
}

/// The tensor whose gradient a role is; `None` for other roles.
fn operand(role: &str) -> Option<Operand> {
    match role.strip_prefix("d_")? {
        "q" => Some(Operand::Q),
        "k" => Some(Operand::K),
        "v" => Some(Operand::V),
        "bias" => Some(Operand::Bias),
        "sinks" => Some(Operand::Sinks),
        "alibi_slopes" => Some(Operand::AlibiSlopes),
        "score_v" => Some(Operand::ScoreV),
        "w_score" => Some(Operand::ScoreMatrix),
        "head_scale" => Some(Operand::HeadScale),
        "relative_table" => Some(Operand::Relative),
        _ => None,
    }
}

impl GoldenCase {
    /// Whether gradients are recorded.
    pub fn has_gradients(&self) -> bool {
        self.record.expected.keys().any(|role| role.starts_with("d_"))
    }

    /// Reads the recorded gradients of a case that is one attention call; `None` where there are none.
    ///
    /// # Errors
    /// An invalid-argument error that names the file and what is wrong in it.
    pub fn gradients(&self, precision: Precision) -> Result<Option<GradientCase>> {
        let roles: Vec<(&String, Operand)> =
            self.record.expected.keys().filter_map(|x| Some((x, operand(x)?))).collect();
        if roles.is_empty() {
            return Ok(None);
        }
        let Support::Supported(loaded) = self.load(precision)? else { return Ok(None) };
        if !matches!(loaded.form, Form::Attention) {
            return Ok(None);
        }
        let mut loaded = *loaded;
        let attention = &mut loaded.attention;
        attention.lse |= attention.normalizer == Normalizer::Softmax;
        let mut reader = Reader { case: self, arrays: Arrays::open(&self.path)?, precision };
        let wanted: Vec<Operand> = roles.iter().map(|(_, operand)| *operand).collect();
        let mut backward = Backward::of(attention.clone()).only(&wanted);
        let problem = attention.validate().map_err(|e| reader.about(&e))?;
        let residue = reader.scale_residue(&problem)?;
        let linear = !attention.inner.is_sum() && attention.cosine.is_none();

        let out = reader.required("d_out")?;
        let d_o = loaded.padded(&reader, "d_out", &out, Operand::O)?;
        let d_lse = match reader.input("d_lse")? {
            Some(array) => {
                backward = backward.from_lse();
                array.values
            }
            None => Vec::new(),
        };
        let mut expected = Vec::new();
        for (role, operand) in roles {
            let array = reader.arrays.get(&self.record.expected[role])?;
            let tolerance = reader.tolerance(role);
            let factor = match operand {
                Operand::Q if linear => residue,
                Operand::ScoreV | Operand::HeadScale if !linear => residue,
                _ => 1.0,
            };
            let past_role = format!("past_{}", operand.name());
            let past = reader.input(&past_role)?.map_or(0, |past| past.shape[2] as usize);
            let buckets = match operand {
                Operand::Relative => reader.buckets()?,
                _ => None,
            };
            let values = match operand.rows() {
                Some(_) if past == 0 => loaded.padded(&reader, role, &array, operand)?,
                _ => array.values,
            };
            expected.push(ExpectedGradient { operand, values, tolerance, factor, past, buckets });
        }
        Ok(Some(GradientCase { backward, loaded, d_o, d_lse, expected }))
    }
}

impl GradientCase {
    /// The gradients that come in.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { o: &self.d_o, lse: &self.d_lse, weights: &[] }
    }

    /// Computes the gradients twice on an engine, on one path, and compares them with the recorded ones.
    ///
    /// # Errors
    /// Invalid argument when the case does not fit, out of memory, device lost, internal; a call that is not served is
    /// an [`Outcome`].
    pub fn run(&self, engine: &Engine, path: Path) -> Result<Outcome> {
        let policy = Policy { path, ..Policy::default() };
        let plan = match engine.plan_backward_with(&self.backward, &policy) {
            Ok(plan) => plan,
            Err(error) if error.is_unsupported() => {
                return Ok(Outcome::Unsupported(reasons(&error)));
            }
            Err(error) => return Err(error),
        };
        let (inputs, incoming) = (self.loaded.data.inputs(), self.incoming());
        let first = engine.run_backward_host(&plan, &inputs, &incoming)?;
        let start = std::time::Instant::now();
        let second = engine.run_backward_host(&plan, &inputs, &incoming)?;
        let milliseconds = start.elapsed().as_secs_f64() * 1e3;
        let kernels: Vec<String> = plan.kernels().iter().map(ToString::to_string).collect();
        Ok(Outcome::Ran(Box::new(Ran {
            kernel: kernels.join(" "),
            comparisons: self.check(&second),
            stray_write: None,
            repeatable: first.same_bits(&second),
            milliseconds,
        })))
    }

    /// Compares gradients with every recorded one.
    pub fn check(&self, found: &Gradients) -> Vec<(Operand, Comparison)> {
        let s = self.loaded.attention.shape;
        let check = |expected: &ExpectedGradient| {
            let mut values: Vec<f64> = found.get(expected.operand).unwrap_or_default().to_vec();
            values.iter_mut().for_each(|x| *x *= expected.factor);
            let row = match expected.operand {
                Operand::Q => self.loaded.attention.general.unwrap_or(s.dim_qk),
                Operand::K => s.dim_qk,
                Operand::V => s.dim_v,
                _ => 1,
            } as usize;
            if expected.past > 0 {
                let head = s.seq_kv as usize * row;
                let new = values.chunks(head).flat_map(|head| &head[expected.past * row..]);
                values = new.copied().collect();
            }
            if let (Some((buckets, both, far)), Some(relative)) =
                (expected.buckets, self.loaded.attention.relative)
            {
                values = relative.t5_table_backward(&values, s.heads_q, both, far, buckets);
            }
            let comparison = compare(&expected.values, &values, row, &expected.tolerance);
            (expected.operand, comparison)
        };
        self.expected.iter().map(check).collect()
    }
}

impl Loaded {
    /// A recorded tensor of rows as `[batch, heads, seq, dim]`; where sequences are packed it is
    /// `[total, heads, dim]`, that of nodes of a graph `[nodes, heads, dim]`.
    fn padded(
        &self,
        reader: &Reader<'_>,
        role: &str,
        array: &Array,
        operand: Operand,
    ) -> Result<Vec<f64>> {
        let problem = self.attention.validate()?;
        let s = self.attention.shape;
        let (heads, seq) = (problem.heads(operand), problem.seq(operand));
        let dim = problem.dim(operand) as usize;
        let packed = self.attention.packed.is_some();
        if !packed && array.shape.len() == 4 {
            let wanted = [s.batch, heads, seq, dim as u32].map(u64::from);
            if array.shape != wanted {
                return Err(reader.wrong(role, &array.shape, &format!("{wanted:?}")));
            }
            return Ok(array.values.clone());
        }
        let operands = self.data.operands();
        let mut values = Vec::new();
        for batch in 0..s.batch {
            let (q_len, kv_len) = problem.lengths(batch, &operands);
            let held = if matches!(operand, Operand::Q | Operand::O) { q_len } else { kv_len };
            for head in 0..heads {
                for row in 0..seq {
                    let node = (row as usize * heads as usize + head as usize) * dim;
                    let index = problem.index(operand, [batch, head, row], &operands) as usize;
                    let start = if packed { index } else { node };
                    match array.values.get(start..start + dim) {
                        Some(found) if row < held => values.extend_from_slice(found),
                        None if row < held => {
                            let wanted = "[total, heads, dim]";
                            return Err(reader.wrong(role, &array.shape, wanted));
                        }
                        _ => values.resize(values.len() + dim, 0.0),
                    }
                }
            }
        }
        Ok(values)
    }
}

impl Reader<'_> {
    /// T5's buckets: how many, whether both ways, and the furthest distance.
    fn buckets(&self) -> Result<Option<(u32, bool, u32)>> {
        let Some(bias) = self.case.record.attributes.get("relative_bias") else { return Ok(None) };
        let number = |name: &str| {
            bias.get(name).and_then(serde_json::Value::as_u64).and_then(|n| u32::try_from(n).ok())
        };
        let both = bias.get("bidirectional").and_then(serde_json::Value::as_bool);
        match (number("num_buckets"), both, number("max_distance")) {
            (Some(buckets), Some(both), Some(far)) => Ok(Some((buckets, both, far))),
            _ => {
                let argument = format!("case {}, relative_bias", self.case.name);
                Err(Error::invalid(argument, bias, "num_buckets, bidirectional, max_distance"))
            }
        }
    }
}
