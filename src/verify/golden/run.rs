//! Running recorded cases, whatever their form.

use crate::device::Readback;
use crate::engine::{Engine, Tensors};
use crate::error::{Error, Result};
use crate::layer::{LayerInputs, LayerOutputs};
use crate::plan::{Path, Policy, SelfTest};
use crate::problem::{Attention, Operand};
use crate::reference::{Outputs, prepare};
use crate::tensor::DType;
use crate::verify::compare::Comparison;
use crate::verify::execute::Placement;
use crate::verify::golden::{Form, LayerCase, Loaded, Role};
use crate::verify::run::{Outcome, Ran, reasons, run};

impl Loaded {
    /// Runs the case on one path of an engine and compares with what was recorded. The fused path returns
    /// no weights; it is checked on the outputs that it has.
    ///
    /// # Errors
    /// As [`run`].
    pub fn run(&self, engine: &Engine, path: Path) -> Result<Outcome> {
        match &self.form {
            Form::Attention => {
                let attention = self.served(&self.attention, path);
                let shown = attention.weights.is_some();
                let inputs = self.data.inputs();
                run(engine, &attention, path, &inputs, Placement::Aligned, |x| {
                    self.compared(&x.outputs, shown)
                })
            }
            Form::Layer(case) => self.run_layer(engine, case, path),
            Form::Rotation if path != Path::Fused => {
                Ok(Outcome::Unsupported("a rotation is one dispatch; it ran as fused".into()))
            }
            Form::Rotation => self.run_rotation(engine),
        }
    }

    /// Computes the case on the float64 reference.
    ///
    /// # Errors
    /// As [`Problem::reference`](crate::Problem::reference).
    pub fn reference(&self) -> Result<Outputs> {
        match &self.form {
            Form::Attention => self.attention.validate()?.reference(&self.data.inputs()),
            Form::Layer(case) => Ok(outputs(case.layer.reference(&self.layer_inputs(case))?)),
            Form::Rotation => {
                let problem = self.attention.validate()?;
                let rows = prepare(&problem, &self.data.inputs(), Operand::Q, |x| x);
                let o = rows.unwrap_or_else(|| self.data.q.clone());
                Ok(Outputs { o, lse: Vec::new(), weights: None })
            }
        }
    }

    fn served(&self, attention: &Attention, path: Path) -> Attention {
        match path {
            Path::Fused | Path::FusedTile | Path::Split => {
                Attention { weights: None, ..attention.clone() }
            }
            _ => attention.clone(),
        }
    }

    fn compared(&self, found: &Outputs, shown: bool) -> Vec<(Operand, Comparison)> {
        let of = |role| match role {
            Role::Lse => Operand::Lse,
            Role::Weights => Operand::Weights,
            Role::PresentK => Operand::K,
            Role::PresentV => Operand::V,
            Role::Out => Operand::O,
        };
        let all = self.check(found).into_iter().filter(|(role, _)| *role != Role::Weights || shown);
        all.map(|(role, comparison)| (of(role), comparison)).collect()
    }

    fn layer_inputs<'a>(&'a self, case: &'a LayerCase) -> LayerInputs<'a> {
        LayerInputs {
            x_q: &case.x_q,
            x_k: &case.x_k,
            x_v: &case.x_v,
            operands: self.data.operands(),
            weights: &case.weights,
        }
    }

    fn run_layer(&self, engine: &Engine, case: &LayerCase, path: Path) -> Result<Outcome> {
        let policy = Policy { path, self_test: SelfTest::Off, ..Policy::default() };
        let mut layer = case.layer.clone();
        layer.attention = self.served(&layer.attention, path);
        layer.average_weights &= layer.attention.weights.is_some();
        let plan = match engine.plan_layer(&layer, &policy) {
            Ok(plan) => plan,
            Err(error) if error.is_unsupported() => {
                return Ok(Outcome::Unsupported(reasons(&error)));
            }
            Err(error) => return Err(error),
        };
        let inputs = self.layer_inputs(case);
        let first = engine.run_layer_host(&plan, &inputs)?;
        let start = std::time::Instant::now();
        let second = engine.run_layer_host(&plan, &inputs)?;
        let milliseconds = start.elapsed().as_secs_f64() * 1e3;
        let kernels: Vec<String> =
            plan.attention.kernels().iter().map(ToString::to_string).collect();
        let repeatable = first == second;
        let shown = layer.attention.weights.is_some();
        Ok(Outcome::Ran(Box::new(Ran {
            kernel: format!("project {}", kernels.join(" ")),
            comparisons: self.compared(&outputs(first), shown),
            stray_write: None,
            repeatable,
            milliseconds,
        })))
    }

    fn run_rotation(&self, engine: &Engine) -> Result<Outcome> {
        let dtype = self.attention.dtype;
        let usage = wgpu::BufferUsages::STORAGE;
        let bytes = dtype.encode(self.data.q.iter().copied());
        let x = crate::device::upload(engine.device(), "x", &bytes, usage)?;
        let o = crate::device::upload(engine.device(), "o", &bytes, usage)?;
        let problem = self.attention.validate()?;
        let operands = self.data.operands();
        let tables = crate::engine::HostTables::new(&problem, &operands);
        let mut tensors = Tensors::new(&x, &x, &x, &o);
        tables.set(&mut tensors);
        let rows = engine.bind_rows(&self.attention, &tensors)?;
        let Some(turned) = rows.rows(Operand::Q) else {
            return Err(Error::internal("rotating", "no rows"));
        };
        let read = || -> Result<Vec<f64>> {
            let mut encoder = engine.device().create_command_encoder(&Default::default());
            rows.encode(&mut encoder);
            let bytes = 4 * self.data.q.len() as u64;
            let back = Readback::record(engine.device(), &mut encoder, turned, 0, bytes)?;
            engine.queue().submit([encoder.finish()]);
            Ok(DType::F32.decode(&back.read_blocking()?))
        };
        let first = read()?;
        let start = std::time::Instant::now();
        let repeatable = first == read()?;
        let milliseconds = start.elapsed().as_secs_f64() * 1e3;
        let o = first.into_iter().map(|x| dtype.round(x)).collect();
        let found = Outputs { o, lse: Vec::new(), weights: None };
        Ok(Outcome::Ran(Box::new(Ran {
            kernel: "prepare".into(),
            comparisons: self.compared(&found, false),
            stray_write: None,
            repeatable,
            milliseconds,
        })))
    }
}

fn outputs(found: LayerOutputs) -> Outputs {
    Outputs { o: found.out, lse: Vec::new(), weights: found.weights }
}
