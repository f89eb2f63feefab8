//! Running a case: plan, execute guarded, compare, and say what happened.

use crate::device::Wait;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::plan::{Path, Policy, SelfTest};
use crate::problem::{Attention, Operand};
use crate::reference::Inputs;
use crate::verify::compare::Comparison;
use crate::verify::execute::{Execution, Placement, execute_in};

/// What became of one case on one path.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It ran; the verdict is [`Ran::failure`].
    Ran(Box<Ran>),
    /// No kernel of the path can serve it on this device; with the reason.
    Unsupported(String),
}

/// A case that ran.
#[derive(Debug, Clone)]
pub struct Ran {
    /// Keys of the kernel variants.
    pub kernel: String,
    /// Every output that was compared.
    pub comparisons: Vec<(Operand, Comparison)>,
    /// Where something was written outside the outputs.
    pub stray_write: Option<String>,
    /// Whether two runs gave the same bits.
    pub repeatable: bool,
    /// Wall time with readback, milliseconds.
    pub milliseconds: f64,
}

impl Ran {
    /// What is wrong, in one line; `None` when everything is right.
    pub fn failure(&self) -> Option<String> {
        if let Some((operand, comparison)) = self.comparisons.iter().find(|(_, c)| !c.pass) {
            return Some(format!("{operand}: {}", comparison.message()));
        }
        if let Some(place) = &self.stray_write {
            return Some(format!("written outside its elements: {place}"));
        }
        (!self.repeatable).then(|| "two runs differ".to_owned())
    }

    /// The comparison nearest to (or furthest beyond) its allowance.
    pub fn worst(&self) -> Option<&(Operand, Comparison)> {
        self.comparisons.iter().max_by(|(_, a), (_, b)| {
            let rank = |c: &Comparison| (c.pass, c.tolerance_ratio);
            let ((a_pass, a_ratio), (b_pass, b_ratio)) = (rank(a), rank(b));
            b_pass.cmp(&a_pass).then(a_ratio.total_cmp(&b_ratio))
        })
    }
}

/// The policy that cases are run under: one path, nothing tried before, since a wrong result must show as wrong. Calls
/// at odd offsets use native f16 even where planning would not, so that both ways are seen.
pub fn policy(path: Path, placement: Placement) -> Policy {
    let native_f16 = placement.is_odd().then_some(true);
    Policy { path, native_f16, self_test: SelfTest::Off, ..Policy::default() }
}

/// Runs a call on one path of an engine and compares its outputs by `check`, blocking the thread.
///
/// # Errors
/// Invalid argument when inputs do not fit, out of memory, device lost, internal; a path that cannot
/// serve the call is an [`Outcome`].
#[cfg(not(target_arch = "wasm32"))]
pub fn run(
    engine: &Engine,
    attention: &Attention,
    path: Path,
    inputs: &Inputs<'_>,
    placement: Placement,
    check: impl FnOnce(&Execution) -> Vec<(Operand, Comparison)>,
) -> Result<Outcome> {
    let (at, wait) = (On { path, placement }, Wait::Blocking);
    pollster::block_on(run_in(engine, attention, at, inputs, check, wait))
}

/// `run` without blocking the thread.
///
/// # Errors
/// As `run`.
pub async fn run_async(
    engine: &Engine,
    attention: &Attention,
    path: Path,
    inputs: &Inputs<'_>,
    placement: Placement,
    check: impl FnOnce(&Execution) -> Vec<(Operand, Comparison)>,
) -> Result<Outcome> {
    let (at, wait) = (On { path, placement }, Wait::Awaiting);
    run_in(engine, attention, at, inputs, check, wait).await
}

/// What a call is run on: a path, and where its tensors start.
#[derive(Debug, Clone, Copy)]
pub(super) struct On {
    pub(super) path: Path,
    pub(super) placement: Placement,
}

pub(super) async fn run_in(
    engine: &Engine,
    attention: &Attention,
    On { path, placement }: On,
    inputs: &Inputs<'_>,
    check: impl FnOnce(&Execution) -> Vec<(Operand, Comparison)>,
    wait: Wait,
) -> Result<Outcome> {
    let plan = match engine.plan_in(attention, &policy(path, placement), wait).await {
        Ok(plan) => plan,
        Err(error) if error.is_unsupported() => {
            return Ok(Outcome::Unsupported(reasons(&error)));
        }
        Err(error) => return Err(error),
    };
    let execution = execute_in(engine, &plan, inputs, placement, wait).await?;
    let comparisons = check(&execution);
    let kernels: Vec<String> = plan.kernels().iter().map(ToString::to_string).collect();
    Ok(Outcome::Ran(Box::new(Ran {
        kernel: kernels.join(" "),
        comparisons,
        stray_write: execution.stray_write,
        repeatable: execution.repeatable,
        milliseconds: execution.milliseconds,
    })))
}

pub(super) fn reasons(error: &Error) -> String {
    let reasons: Vec<String> =
        error.rejections().iter().map(|r| format!("{}: {}", r.candidate, r.reason)).collect();
    reasons.join("; ")
}
