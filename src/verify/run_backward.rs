//! Running the gradients of a case: plan, execute guarded, compare, and say what happened.

use web_time::Instant;

use crate::device::{Wait, settled};
use crate::engine::{Engine, HostTables};
use crate::error::Result;
use crate::plan::{BackwardPlan, Path, Policy, SelfTest};
use crate::problem::{Backward, BackwardProblem, Operand};
use crate::reference::{Gradients, Incoming, Inputs};
use crate::verify::alone::last_alone;
use crate::verify::cases::{BackwardCase, CaseIncoming};
use crate::verify::data::CaseData;
use crate::verify::execute::{Placement, submitted};
use crate::verify::gradients::GradientTruth;
use crate::verify::held_backward::Held;
use crate::verify::run::{Outcome, Ran, reasons};

/// What a run gave.
#[derive(Debug, Clone)]
pub struct BackwardExecution {
    /// The gradients, gapless.
    pub gradients: Gradients,
    /// First buffer written outside its elements, with the byte offset; `None` when none was.
    pub stray_write: Option<String>,
    /// Whether the second run gave the same bits.
    pub repeatable: bool,
    /// Wall time of the second run with its readback, milliseconds.
    pub milliseconds: f64,
}

/// Computes gradients twice on poisoned, guarded tensors, at odd offsets or aligned ones. o and lse of the forward pass
/// are the reference's. Gradients that are added to what is there are halves of what two passes add to 0: exact. It
/// blocks the thread.
///
/// # Errors
/// Invalid argument when something does not fit the problem, out of memory, device lost, internal.
#[cfg(not(target_arch = "wasm32"))]
pub fn execute_backward(
    engine: &Engine,
    plan: &BackwardPlan,
    inputs: &Inputs<'_>,
    incoming: &Incoming<'_>,
    odd: bool,
) -> Result<BackwardExecution> {
    pollster::block_on(execute_in(engine, plan, inputs, incoming, odd, Wait::Blocking))
}

async fn execute_in(
    engine: &Engine,
    plan: &BackwardPlan,
    inputs: &Inputs<'_>,
    incoming: &Incoming<'_>,
    odd: bool,
    wait: Wait,
) -> Result<BackwardExecution> {
    let problem = plan.problem();
    incoming.validate(problem)?;
    let accumulate = problem.backward().accumulate;
    let forward = problem.problem().reference(inputs)?;
    let tables = HostTables::new(problem.problem(), &inputs.operands);
    let hold = || Held::new(engine, plan, inputs, &forward, incoming, odd);
    let held = settled(hold).await?;
    let tensors = held.tensors(&tables)?;
    let bound = settled(|| engine.bind_backward(plan, &tensors)).await?;
    let written: Vec<&wgpu::Buffer> = held.written().collect();
    let run = || {
        submitted(engine, &written, wait, |encoder| {
            held.poison(encoder);
            if accumulate {
                held.clear(encoder, problem, &inputs.operands);
                bound.encode(encoder);
            }
            bound.encode(encoder);
        })
    };
    let first = run().await?;
    let start = Instant::now();
    let second = run().await?;
    let milliseconds = start.elapsed().as_secs_f64() * 1e3;
    let (mut gradients, stray_write) = held.collect(problem, &inputs.operands, &first);
    if accumulate {
        gradients = gradients.scaled(0.5);
    }
    let repeatable = held.same(&first, &second);
    Ok(BackwardExecution { gradients, stray_write, repeatable, milliseconds })
}

/// A case with its data and what comes in.
pub struct Trial {
    case: BackwardCase,
    problem: BackwardProblem,
    data: CaseData,
    incoming: CaseIncoming,
}

impl Trial {
    /// Draws a case's data.
    ///
    /// # Errors
    /// As [`BackwardCase::generate`]: the reason why the call has no gradients.
    pub fn new(case: &BackwardCase) -> Result<Self> {
        let (problem, data, incoming) = case.generate()?;
        Ok(Self { case: case.clone(), problem, data, incoming })
    }

    /// The policy that a case is run under: nothing tried before, since a wrong result must show as wrong; native f16
    /// at odd offsets even where planning would not use it, so that both ways are seen.
    pub fn policy(case: &BackwardCase, placement: Placement) -> Policy {
        let native_f16 = placement.is_odd().then_some(true);
        Policy { native_f16, self_test: SelfTest::Off, ..case.policy() }
    }

    /// Computes its gradients on an engine and compares them with the reference's; and says where the last sequence
    /// alone has other bits than in its batch. It blocks the thread.
    ///
    /// # Errors
    /// Out of memory, device lost, internal; a call that is not served is an [`Outcome`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn run(&self, engine: &Engine, placement: Placement) -> Result<(Outcome, Option<String>)> {
        pollster::block_on(self.run_in(engine, placement, Wait::Blocking))
    }

    /// `run` without blocking the thread.
    ///
    /// # Errors
    /// As `run`.
    pub async fn run_async(
        &self,
        engine: &Engine,
        placement: Placement,
    ) -> Result<(Outcome, Option<String>)> {
        self.run_in(engine, placement, Wait::Awaiting).await
    }

    async fn run_in(
        &self,
        engine: &Engine,
        placement: Placement,
        wait: Wait,
    ) -> Result<(Outcome, Option<String>)> {
        let (odd, policy) = (placement.is_odd(), Self::policy(&self.case, placement));
        let plan = match engine.plan_backward_in(&self.case.backward, &policy, wait).await {
            Ok(plan) => plan,
            Err(error) if error.is_unsupported() => {
                return Ok((Outcome::Unsupported(reasons(&error)), None));
            }
            Err(error) => return Err(error),
        };
        let (inputs, incoming) = (self.data.inputs(), self.incoming.incoming());
        let execution = execute_in(engine, &plan, &inputs, &incoming, odd, wait).await?;
        let truth = GradientTruth::measure(&self.problem, &inputs, &incoming)?;
        let kernels: Vec<String> = plan.kernels().iter().map(ToString::to_string).collect();
        let ran = Ran {
            kernel: kernels.join(" "),
            comparisons: truth.check(&execution.gradients),
            stray_write: execution.stray_write,
            repeatable: execution.repeatable,
            milliseconds: execution.milliseconds,
        };
        let differs = match ran.failure() {
            None => {
                let (path, whole) = (plan.path(), &execution.gradients);
                self.differs_alone(engine, placement, path, whole, wait).await?
            }
            Some(_) => None,
        };
        Ok((Outcome::Ran(Box::new(ran)), differs))
    }

    /// Runs the last sequence of the batch alone; says where the bits of its rows' gradients are others than in the
    /// batch.
    async fn differs_alone(
        &self,
        engine: &Engine,
        placement: Placement,
        path: Path,
        whole: &Gradients,
        wait: Wait,
    ) -> Result<Option<String>> {
        let asked = &self.case.backward;
        let Some((call, own)) = last_alone(&asked.attention, &self.data) else { return Ok(None) };
        // With all that is wanted beside: a compiler may round the same sums differently in a kernel that stores more
        // (the Gaussian of a predicted centre on one H200).
        let asked = Backward { attention: call, ..asked.clone() };
        let policy = Policy { path, ..Self::policy(&self.case, placement) };
        let plan = match engine.plan_backward_in(&asked, &policy, wait).await {
            Ok(plan) => plan,
            Err(error) if error.is_unsupported() => return Ok(None),
            Err(error) => return Err(error),
        };
        let batch = self.case.backward.attention.shape.batch as usize;
        let last = |values: &[f64]| values[values.len() - values.len() / batch..].to_vec();
        let CaseIncoming { o, lse, weights } = &self.incoming;
        let incoming = CaseIncoming { o: last(o), lse: last(lse), weights: last(weights) };
        let incoming = incoming.incoming();
        let (inputs, odd) = (own.inputs(), placement.is_odd());
        let alone = execute_in(engine, &plan, &inputs, &incoming, odd, wait).await?;
        for operand in [Operand::Q, Operand::K, Operand::V] {
            let Some(alone) = alone.gradients.get(operand) else { continue };
            let within = whole.get(operand).unwrap_or_default();
            let within = &within[within.len() - alone.len()..];
            let same =
                |(a, b): (&f64, &f64)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
            if let Some(i) = within.iter().zip(alone).position(|pair| !same(pair)) {
                let (a, b) = (within[i], alone[i]);
                return Ok(Some(format!(
                    "not batch-invariant: element {i} of the gradient of {operand} of the last sequence is {a:e} \
                     in its batch and {b:e} alone"
                )));
            }
        }
        Ok(None)
    }
}
