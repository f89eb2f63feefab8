//! The self-test of gradients: their kernels run a small known-answer call before they serve.
//!
//! Where a kernel is wrong the other path serves, where that can; else it is an error that names the kernel.

use super::backward_scratch::Scratch;
use super::extent;
use super::known_gradients::{KnownGradients, difference};
use crate::device::Wait;
use crate::engine::Engine;
use crate::engine::verdicts::Verdict;
use crate::error::{Error, Rejection, Result};
use crate::kernel::KernelSpec;
use crate::plan::{BackwardPlan, Makes, Path, Policy, SelfTest};
use crate::problem::{Attention, Backward, Operand};

/// How the known-answer call of gradients went wrong.
struct Wrong {
    reason: String,
    /// The gradient that would be right were it not written over what was there before, or not added to it: only what
    /// writes it can be to blame.
    before: Option<Operand>,
}

impl Engine {
    /// Plans gradients, trying what has not been tried.
    pub(crate) async fn plan_backward_in(
        &self,
        backward: &Backward,
        policy: &Policy,
        wait: Wait,
    ) -> Result<BackwardPlan> {
        let problem = backward.validate()?;
        if policy.self_test == SelfTest::Off {
            return BackwardPlan::new(&problem, &self.capabilities, policy);
        }
        self.check_queue()?;
        self.derivatives_agree(&backward.attention, wait).await?;
        let (plans, mut rejections) =
            BackwardPlan::candidates(&problem, &self.capabilities, policy);
        for mut plan in plans {
            match self.refused(&plan, wait).await? {
                None => {
                    plan.rejections = rejections;
                    return Ok(plan);
                }
                Some(refused) => rejections.push(refused),
            }
        }
        Err(Error::unsupported(problem.to_string(), rejections))
    }

    /// Compares functions of the caller's own and their derivatives with their closures.
    async fn derivatives_agree(&self, attention: &Attention, wait: Wait) -> Result<()> {
        self.functions_agree(attention, wait).await?;
        let derivatives = attention.custom_scores.iter().filter_map(|x| x.derivative_alone());
        let custom_scores = derivatives.collect();
        let alone = Attention { custom_scores, custom_masks: Vec::new(), ..attention.clone() };
        self.functions_agree(&alone, wait).await
    }

    /// What of a plan is wrong on this device; tries what has not been tried.
    async fn refused(&self, plan: &BackwardPlan, wait: Wait) -> Result<Option<Rejection>> {
        let attention = plan.problem().problem().attention();
        let (kernels, extent) = (plan.kernels(), extent(attention));
        if self.verdicts.of(&kernels, extent) == Verdict::Unknown
            && self.all_compile(&kernels, extent, wait).await?
            // What a table means is known to the caller only.
            && attention.table.is_none()
        {
            self.try_gradients(plan, extent, wait).await?;
        }
        Ok(match self.verdicts.of(&kernels, extent) {
            Verdict::Wrong(rejection) => Some(rejection),
            Verdict::Right | Verdict::Unknown => None,
        })
    }

    /// Runs known-answer calls, with sums over sequences within a block and from block to block, and keeps the verdict.
    async fn try_gradients(&self, plan: &BackwardPlan, extent: [u32; 2], wait: Wait) -> Result<()> {
        // In one pass there are no blocks for sequences to be apart in.
        let rounds = if plan.path() == Path::Staged { &[false, true][..] } else { &[false] };
        for &apart in rounds {
            let Some(call) = KnownGradients::new(plan, &self.capabilities, apart)? else {
                return Ok(());
            };
            let wrong = self.wrong_gradients(&call, wait).await?;
            if !wrong.is_empty() {
                return self.blame_backward(&call, extent, wrong, wait).await;
            }
        }
        self.verdicts.set_right(&plan.kernels(), extent);
        Ok(())
    }

    /// Runs the known-answer call twice into the same buffers, so that the second run finds no zeros there.
    async fn wrong_gradients(&self, call: &KnownGradients, wait: Wait) -> Result<Vec<Wrong>> {
        let (inputs, incoming) = (call.tensors.inputs(), call.incoming());
        let outputs = call.outputs()?;
        let plan = &call.plan;
        let run = self.run_backward_host_in(plan, &inputs, &incoming, outputs.as_ref(), 2, wait);
        let found = match run.await {
            Ok(found) => found,
            Err(error) if error.is_internal() => {
                return Ok(vec![Wrong { reason: error.to_string(), before: None }]);
            }
            Err(error) => return Err(error),
        };
        let problem = plan.problem();
        let adds = problem.backward().accumulate;
        let half = found.scaled(0.5);
        let (meant, otherwise) = if adds { (&half, &found) } else { (&found, &half) };
        let wanted = call.wanted()?;
        let wrong = wanted.iter().filter_map(|(operand, _)| {
            let reason = difference(problem, operand, meant, &wanted)?;
            let before = difference(problem, operand, otherwise, &wanted).is_none();
            Some(Wrong { reason, before: before.then_some(operand) })
        });
        Ok(wrong.collect())
    }

    /// Finds out which kernels of a wrong result are to blame, in another run that is looked at on its way.
    async fn blame_backward(
        &self,
        call: &KnownGradients,
        extent: [u32; 2],
        wrong: Vec<Wrong>,
        wait: Wait,
    ) -> Result<()> {
        let all = call.plan.kernels();
        let scratch = match Scratch::of(self, call, wait).await {
            Ok(scratch) => scratch,
            // The device refuses some of it.
            Err(error) if error.is_internal() => {
                self.verdicts.set_wrong(&all, extent, error.to_string());
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if scratch.differs(call, &call.wanted()?).is_none() {
            // Right where gradients start at 0. What is not what was there before is wrong in one run and right in the
            // next.
            for Wrong { reason, before } in wrong {
                let writers = before.map_or(all.clone(), |operand| call.plan.writers(operand));
                self.verdicts.set_wrong(&writers, extent, reason);
            }
            return Ok(());
        }
        let reason = wrong.into_iter().next().map(|wrong| wrong.reason).unwrap_or_default();
        let (wrong, mut suspects) = scratch.judged(call);
        if wrong.is_empty() {
            // Each is right by itself, and all together are not.
            suspects = if suspects.is_empty() { all } else { suspects };
            self.verdicts.set_wrong(&suspects, extent, reason);
        }
        for (kernel, reason) in wrong {
            self.verdicts.set_wrong(&[kernel], extent, reason);
        }
        Ok(())
    }
}

impl Scratch {
    /// The kernels that are wrong by themselves, each with how, and those that nothing says anything of: each is judged
    /// by what it found, which is in scratch or was left beside it.
    fn judged<'a>(
        &self,
        call: &'a KnownGradients,
    ) -> (Vec<(&'a KernelSpec, String)>, Vec<&'a KernelSpec>) {
        let (mut wrong, mut suspects) = (Vec::new(), Vec::new());
        let staged = call.plan.path() == Path::Staged;
        let hidden = if staged { self.hidden(call) } else { None };
        let kept = if call.plan.reads_outputs() { self.kept(call) } else { None };
        // What rows leave is known of right copies only.
        let copied = call.plan.steps.iter().any(|step| match step.makes {
            Makes::Copy(of) => self.copy(call, of).flatten().is_some(),
            _ => false,
        });
        let rows_are_wrong =
            call.plan.reads_outputs() && !copied && self.left_by_rows_is_wrong(call);
        for step in &call.plan.steps {
            let tried = match step.makes {
                Makes::Copy(of) => self.copy(call, of),
                Makes::Turned => self.turned(call),
                Makes::Unprepared(of) => self.unprepared(call, of),
                Makes::Products | Makes::Incoming => Some(self.products(call, step.makes)),
                Makes::Rows => hidden.clone().map(Some),
                Makes::Delta => Some(kept.clone()),
                // What is kept of rows is in their sums.
                Makes::OfRows | Makes::OfQueries | Makes::OfKeys if kept.is_some() || copied => {
                    Some(None)
                }
                Makes::OfRows if rows_are_wrong => {
                    Some(Some("wrong in the self-test: what rows leave to keys".into()))
                }
                // 1 / l of a wrong kernel of rows is in their sums.
                Makes::OfQueries | Makes::OfKeys if rows_are_wrong => Some(None),
                Makes::OfRows | Makes::OfQueries | Makes::OfKeys => self.in_one_pass(call, step),
                // What the rows did not hide is in their sums.
                Makes::Gradient(_) if hidden.is_some() => Some(None),
                Makes::Gradient(operand) => Some(self.sums(call, operand)),
            };
            match tried {
                Some(None) => {}
                Some(Some(reason)) => wrong.push((&step.kernel, reason)),
                None => suspects.push(&step.kernel),
            }
        }
        (wrong, suspects)
    }
}
