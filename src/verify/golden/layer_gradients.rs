//! The recorded gradients of layers: roles `d_…` of their inputs and learned tensors.

use crate::engine::Engine;
use crate::error::Result;
use crate::layer::{LayerBackward, LayerGradients, LayerInputs, LayerTensor};
use crate::plan::{Policy, SelfTest};
use crate::problem::Operand;
use crate::reference::Gradients;
use crate::verify::compare::{Comparison, Tolerance, compare};
use crate::verify::golden::reader::Reader;
use crate::verify::golden::{Form, GoldenCase, LayerCase, Loaded, Precision, Support};
use crate::verify::npy::Arrays;
use crate::verify::run::{Outcome, Ran, reasons};

/// A recorded layer with the gradients of its tensors.
#[derive(Debug, Clone)]
pub struct LayerGradientCase {
    /// The layer and the gradients that are recorded.
    pub backward: LayerBackward,
    /// Its data and outputs.
    pub loaded: Loaded,
    /// The layer's own inputs and weights.
    pub case: LayerCase,
    /// Gradient of the output.
    pub d_out: Vec<f64>,
    expected: Vec<Expected>,
}

/// A recorded gradient.
#[derive(Debug, Clone)]
struct Expected {
    /// Whose: of several inputs where one serves as several.
    tensors: Vec<LayerTensor>,
    values: Vec<f64>,
    tolerance: Tolerance,
}

impl GoldenCase {
    /// Reads a layer with its recorded gradients; `None` where the case is none, or cannot be run here.
    ///
    /// # Errors
    /// An invalid-argument error that names the file and what is wrong in it.
    pub fn layer_gradients(&self, precision: Precision) -> Result<Option<LayerGradientCase>> {
        let Support::Supported(loaded) = self.load(precision)? else { return Ok(None) };
        let Form::Layer(case) = &loaded.form else { return Ok(None) };
        let mut reader = Reader { case: self, arrays: Arrays::open(&self.path)?, precision };
        let mut expected = Vec::new();
        for (role, array) in &self.record.expected {
            let tensors = self.tensors(role);
            if !tensors.is_empty() {
                let (values, tolerance) =
                    (reader.arrays.get(array)?.values, reader.tolerance(role));
                expected.push(Expected { tensors, values, tolerance });
            }
        }
        if expected.is_empty() {
            return Ok(None);
        }
        let wanted: Vec<LayerTensor> =
            expected.iter().flat_map(|x| x.tensors.iter().copied()).collect();
        let backward = LayerBackward::of(case.layer.clone()).only(&wanted);
        let d_out = reader.required("d_out")?.values;
        let case = case.as_ref().clone();
        Ok(Some(LayerGradientCase { backward, loaded: *loaded, case, d_out, expected }))
    }

    /// The tensors whose gradients a role is the sum of; none for other roles.
    fn tensors(&self, role: &str) -> Vec<LayerTensor> {
        use LayerTensor::{XK, XQ, XV};
        let Some(name) = role.strip_prefix("d_") else { return Vec::new() };
        if name == "x" {
            return vec![XQ, XK, XV];
        }
        let there = |name: &str| self.record.inputs.contains_key(name);
        // What serves as keys serves as values, unless those have an input of their own.
        let of_k = if there("x_k") { "x_k" } else { "x_q" };
        let of_v = if there("x_v") { "x_v" } else { of_k };
        match name {
            "x_q" | "x_k" | "x_v" => {
                let inputs = [(XQ, "x_q"), (XK, of_k), (XV, of_v)];
                inputs.into_iter().filter(|(_, of)| *of == name).map(|(x, _)| x).collect()
            }
            _ => LayerTensor::ALL.iter().copied().filter(|x| x.name() == name).collect(),
        }
    }
}

impl LayerGradientCase {
    /// The layer's inputs.
    pub fn inputs(&self) -> LayerInputs<'_> {
        LayerInputs {
            x_q: &self.case.x_q,
            x_k: &self.case.x_k,
            x_v: &self.case.x_v,
            operands: self.loaded.data.operands(),
            weights: &self.case.weights,
        }
    }

    /// Compares gradients with every recorded one.
    pub fn check(&self, found: &LayerGradients) -> Vec<(LayerTensor, Comparison)> {
        let check = |Expected { tensors, values, tolerance }: &Expected| {
            let mut sum = vec![0.0; values.len()];
            for tensor in tensors {
                let d = found.get(*tensor).unwrap_or_default();
                // What is missing, or too long, is seen.
                sum.resize(d.len(), 0.0);
                sum.iter_mut().zip(d).for_each(|(sum, d)| *sum += d);
            }
            (tensors[0], compare(values, &sum, 1, tolerance))
        };
        self.expected.iter().map(check).collect()
    }

    /// Computes the gradients twice on an engine and compares them with the recorded ones.
    ///
    /// # Errors
    /// Invalid argument when the case does not fit, out of memory, device lost, internal; a layer that is not served is
    /// an [`Outcome`].
    pub fn run(&self, engine: &Engine) -> Result<Outcome> {
        let policy = Policy { self_test: SelfTest::Off, ..Policy::default() };
        let plans = engine.plan_layer(&self.backward.layer, &policy).and_then(|forward| {
            Ok((forward, engine.plan_layer_backward(&self.backward, &policy)?))
        });
        let (forward, plan) = match plans {
            Ok(plans) => plans,
            Err(error) if error.is_unsupported() => {
                return Ok(Outcome::Unsupported(reasons(&error)));
            }
            Err(error) => return Err(error),
        };
        let run = || engine.run_layer_backward_host(&forward, &plan, &self.inputs(), &self.d_out);
        let first = run()?;
        let start = std::time::Instant::now();
        let second = run()?;
        let milliseconds = start.elapsed().as_secs_f64() * 1e3;
        let kernels = plan.attention.iter().flat_map(|plan| plan.kernels());
        let kernels: Vec<String> = kernels.map(ToString::to_string).collect();
        let belongs = |(tensor, comparison)| (between(tensor), comparison);
        Ok(Outcome::Ran(Box::new(Ran {
            kernel: format!("backward_matrix {}", kernels.join(" ")),
            comparisons: self.check(&second).into_iter().map(belongs).collect(),
            stray_write: None,
            repeatable: same_bits(&first, &second),
            milliseconds,
        })))
    }
}

/// The tensor of the call between the projections that a tensor of the layer is multiplied into.
fn between(tensor: LayerTensor) -> Operand {
    use LayerTensor::{BK, BO, BQ, BV, BiasK, BiasV, WK, WO, WQ, WV, XK, XQ, XV};
    match tensor {
        XQ | WQ | BQ => Operand::Q,
        XK | WK | BK | BiasK => Operand::K,
        XV | WV | BV | BiasV => Operand::V,
        WO | BO => Operand::O,
    }
}

fn same_bits(a: &LayerGradients, b: &LayerGradients) -> bool {
    let mut all = a.iter().zip(b.iter());
    let same = |x: &[f64], y: &[f64]| {
        x.len() == y.len() && x.iter().zip(y).all(|(x, y)| x.to_bits() == y.to_bits())
    };
    let learned = |x: &Gradients, y: &Gradients| x.same_bits(y);
    all.all(|((x, a), (y, b))| x == y && same(a, b)) && learned(&a.between, &b.between)
}
