//! The self-test: a kernel variant proves itself on the adapter before it serves.
//!
//! Drivers miscompile, and a wrong attention looks plausible. So the first time an engine plans with a
//! variant, the plan's kernels run a small known-answer call with the same features against the float64
//! reference. Where the result is wrong, those that can be tried alone are, and are blamed on that;
//! what is left is blamed together. What is to blame is named among the rejections, and the next
//! candidate serves.

mod alone;
mod backward;
mod backward_alone;
mod backward_met;
mod backward_scratch;
mod functions;
mod known;
mod known_gradients;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::device::{self, Readback, Wait};
use crate::engine::verdicts::Verdict;
use crate::engine::{Dispatch, Engine};
use crate::error::{Error, Rejection, Result};
use crate::kernel::KernelSpec;
use crate::plan::{Plan, Policy, SelfTest};
use crate::problem::{Attention, Operand, Problem};
use crate::reference::{Inputs, Outputs};
use alone::Alone;

pub(in crate::engine) use functions::Functions;
use known::{KnownCall, difference};

impl Engine {
    /// Plans a call, trying what has not been tried.
    pub(crate) async fn plan_in(
        &self,
        attention: &Attention,
        policy: &Policy,
        wait: Wait,
    ) -> Result<Plan> {
        let problem = attention.validate()?;
        let tries = policy.self_test == SelfTest::OnFirstUse;
        if tries {
            self.check_queue()?;
            self.functions_agree(attention, wait).await?;
        }
        loop {
            let plan = self.choose(&problem, policy)?;
            if !tries || self.proves(&plan, wait).await? {
                return Ok(plan);
            }
        }
    }

    /// The plan of a call as far as verdicts are known.
    pub(in crate::engine) fn choose(&self, problem: &Problem, policy: &Policy) -> Result<Plan> {
        let extent = extent(problem.attention());
        let refused = |kernels: &[&KernelSpec]| match self.verdicts.of(kernels, extent) {
            Verdict::Wrong(rejection) => Some(rejection),
            Verdict::Right | Verdict::Unknown => None,
        };
        Plan::choose(problem, &self.capabilities, policy, &refused)
    }

    /// Whether every kernel of a plan is right on this device; tries those that have not been tried.
    ///
    /// `false` means that something of it is known to be wrong now.
    ///
    /// # Errors
    /// Invalid argument when a caller's own WGSL does not compile; device lost; out of memory.
    async fn proves(&self, plan: &Plan, wait: Wait) -> Result<bool> {
        let kernels = plan.kernels();
        let extent = extent(plan.problem().attention());
        match self.verdicts.of(&kernels, extent) {
            Verdict::Right => return Ok(true),
            Verdict::Wrong(_) => return Ok(false),
            Verdict::Unknown => {}
        }
        let compile = self.all_compile(&kernels, extent, wait).await?;
        // What a table means is known to the caller only, so functions that read one are not tried.
        if !compile || plan.problem().attention().table.is_some() {
            return Ok(compile);
        }
        let Some(call) = KnownCall::new(plan, &self.capabilities)? else { return Ok(true) };
        match self.known_answer(&call, wait).await? {
            None => {
                self.verdicts.set_right(&kernels, extent);
                Ok(true)
            }
            Some(reason) => {
                self.blame(&call, &kernels, extent, reason, wait).await?;
                Ok(false)
            }
        }
    }

    /// Whether all kernels compile; what does not is refused from now on.
    async fn all_compile(
        &self,
        kernels: &[&KernelSpec],
        extent: [u32; 2],
        wait: Wait,
    ) -> Result<bool> {
        let mut compile = true;
        for (spec, result) in kernels.iter().zip(self.compile(kernels, wait).await) {
            match result {
                Ok(()) => {}
                Err(error) if error.is_internal() => {
                    self.verdicts.set_wrong(&[spec], extent, error.to_string());
                    compile = false;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(compile)
    }

    /// Runs the known-answer call; says what is wrong with the result.
    async fn known_answer(&self, call: &KnownCall, wait: Wait) -> Result<Option<String>> {
        let inputs = call.tensors.inputs();
        let found = match self.run_host_in(&call.plan, &inputs, wait).await {
            Ok(found) => found,
            Err(error) if error.is_internal() => return Ok(Some(error.to_string())),
            Err(error) => return Err(error),
        };
        let wanted = truth(call.plan.problem(), &inputs)?;
        Ok(difference(call.plan.problem(), &found, &wanted))
    }

    /// Finds out which kernels of a wrong result are to blame.
    async fn blame(
        &self,
        call: &KnownCall,
        kernels: &[&KernelSpec],
        extent: [u32; 2],
        reason: String,
        wait: Wait,
    ) -> Result<()> {
        let (mut suspects, mut found) = (Vec::new(), false);
        for &spec in kernels {
            if self.verdicts.of(&[spec], extent) == Verdict::Right {
                continue;
            }
            match self.tried_alone(call, spec, wait).await? {
                Alone::Right => self.verdicts.set_right(&[spec], extent),
                Alone::Wrong(reason) => {
                    self.verdicts.set_wrong(&[spec], extent, reason);
                    found = true;
                }
                Alone::NoAnswer => suspects.push(spec),
            }
        }
        if !found {
            // Each is right by itself, and all together are not.
            let all = if suspects.is_empty() { kernels } else { &suspects };
            self.verdicts.set_wrong(all, extent, reason);
        }
        Ok(())
    }

    /// The verdict of a kernel that is used by itself, found by its trial the first time: why it is refused, if it is.
    ///
    /// # Errors
    /// Device lost; out of memory; what else keeps it from being tried.
    pub(crate) async fn tried(
        &self,
        spec: &KernelSpec,
        trial: impl Future<Output = Result<Option<String>>>,
    ) -> Result<Option<Rejection>> {
        if self.verdicts.alone(spec) == Verdict::Unknown {
            let compiled = self.pipelines.compiled(&self.device, spec).await;
            let wrong = match compiled {
                Ok(()) => trial.await,
                Err(error) => Err(error),
            };
            match wrong {
                Ok(None) => self.verdicts.set_right(&[spec], [0; 2]),
                Ok(Some(reason)) => self.verdicts.set_wrong(&[spec], [0; 2], reason),
                // The driver refuses it.
                Err(error) if error.is_internal() => {
                    self.verdicts.set_wrong(&[spec], [0; 2], error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        match self.verdicts.alone(spec) {
            Verdict::Wrong(rejection) => Ok(Some(rejection)),
            Verdict::Right | Verdict::Unknown => Ok(None),
        }
    }

    /// Submits dispatches of a trial, and what they leave in a part of a buffer on its way to the host.
    ///
    /// # Errors
    /// Out of memory; device lost; internal.
    pub(crate) fn tried_once(
        &self,
        dispatches: &[Dispatch],
        buffer: &wgpu::Buffer,
        part: Range<u64>,
    ) -> Result<Readback> {
        let mut encoder = self.device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        dispatches.iter().for_each(|dispatch| dispatch.record(&mut pass));
        drop(pass);
        let bytes = part.end - part.start;
        let back = Readback::record(&self.device, &mut encoder, buffer, part.start, bytes)?;
        device::scoped(&self.device, "submitting a self-test", 0, || {
            self.queue.submit([encoder.finish()])
        })?;
        Ok(back)
    }

    /// Proves the kernels of a plan that makes no attention, each by itself.
    ///
    /// # Errors
    /// Unsupported where one is wrong on this device; invalid argument where a function of the caller's own is; device
    /// lost; out of memory.
    pub(in crate::engine) async fn proves_each(&self, plan: &Plan, wait: Wait) -> Result<()> {
        let attention = plan.problem().attention();
        let (kernels, extent) = (plan.kernels(), extent(attention));
        if kernels.iter().any(|spec| spec.is_custom()) {
            self.functions_agree(attention, wait).await?;
        }
        for spec in kernels {
            // What a table means is known to the caller only.
            if self.verdicts.of(&[spec], extent) == Verdict::Unknown && !spec.reads(Operand::Table)
            {
                match self.pipelines.compiled(&self.device, spec).await {
                    Ok(()) => self.judge(plan, spec, extent, wait).await?,
                    Err(error) if error.is_internal() => {
                        self.verdicts.set_wrong(&[spec], extent, error.to_string());
                    }
                    Err(error) => return Err(error),
                }
            }
            if let Verdict::Wrong(rejection) = self.verdicts.of(&[spec], extent) {
                return Err(Error::unsupported(plan.problem().to_string(), vec![rejection]));
            }
        }
        Ok(())
    }

    /// Tries a kernel by itself and keeps the verdict.
    async fn judge(
        &self,
        plan: &Plan,
        spec: &KernelSpec,
        extent: [u32; 2],
        wait: Wait,
    ) -> Result<()> {
        let Some(call) = KnownCall::new(plan, &self.capabilities)? else { return Ok(()) };
        match self.tried_alone(&call, spec, wait).await? {
            Alone::Wrong(reason) => self.verdicts.set_wrong(&[spec], extent, reason),
            Alone::Right => self.verdicts.set_right(&[spec], extent),
            Alone::NoAnswer => {}
        }
        Ok(())
    }
}

/// The reference's answer.
fn truth(problem: &Problem, inputs: &Inputs<'_>) -> Result<Outputs> {
    quietly(|| problem.reference(inputs))
}

/// What the reference says. Functions of the caller's own may panic on numbers that only it has seen.
fn quietly<T>(answer: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(answer)).unwrap_or_else(|_| {
        let wanted = "closures that return for every position and finite score";
        Err(Error::invalid("custom functions", "a panic", wanted))
    })
}

/// How large a call is for functions of the caller's own, which are asked for its positions only: powers of
/// two, so that a call that grows by a token is not tried anew each time, and none beyond what a trial would
/// ask for.
fn extent(attention: &Attention) -> [u32; 2] {
    let floor = |n: u32, most: u32| n.min(most).checked_ilog2().map_or(0, |bits| 1 << bits);
    [floor(attention.shape.seq_q, 128), floor(attention.shape.seq_kv, 512)]
}
