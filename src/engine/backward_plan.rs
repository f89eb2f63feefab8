//! Planning gradients: at once, ahead, without blocking.

use std::collections::HashSet;

use crate::device::Wait;
use crate::engine::Engine;
use crate::error::Result;
use crate::kernel::KernelSpec;
use crate::plan::{BackwardPlan, Policy};
use crate::problem::Backward;

impl Engine {
    /// Plans the gradients of a call for this device under the default policy, blocking the thread while kernels are
    /// compiled and tried.
    ///
    /// # Errors
    /// Invalid argument for gradients that a call cannot have, and for a function of the caller's (or its derivative)
    /// that does not compile, panics or differs from its closure; unsupported, with the reason; out of memory or device
    /// lost while kernels are tried.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn plan_backward(&self, backward: &Backward) -> Result<BackwardPlan> {
        self.plan_backward_with(backward, &Policy::default())
    }

    /// [`plan_backward`](Self::plan_backward) under a policy of the caller's: its checks, its use of f16, its bound on
    /// scratch and its self-test count here, and its path where that is one of
    /// [`BackwardPlan::PATHS`]. As in [`plan_with`](Self::plan_with), kernel variants that this engine
    /// has not used before run a small known-answer call first; where one is wrong on this device the next path
    /// serves if it can, else the error names the kernel.
    ///
    /// # Errors
    /// As [`plan_backward`](Self::plan_backward).
    #[cfg(not(target_arch = "wasm32"))]
    pub fn plan_backward_with(&self, backward: &Backward, policy: &Policy) -> Result<BackwardPlan> {
        pollster::block_on(self.plan_backward_in(backward, policy, Wait::Blocking))
    }

    /// [`plan_backward_with`](Self::plan_backward_with) without blocking the thread.
    ///
    /// # Errors
    /// As [`plan_backward`](Self::plan_backward).
    pub async fn plan_backward_async(
        &self,
        backward: &Backward,
        policy: &Policy,
    ) -> Result<BackwardPlan> {
        self.plan_backward_in(backward, policy, Wait::Awaiting).await
    }

    /// Plans gradients ahead, as [`warm`](Self::warm) does calls: compiles what they need on as many threads as the
    /// machine has cores, and tries it. One result for each, in order.
    pub async fn warm_backward(
        &self,
        backward: &[Backward],
        policy: &Policy,
    ) -> Vec<Result<BackwardPlan>> {
        let plan =
            |x: &Backward| BackwardPlan::new(&x.validate().ok()?, &self.capabilities, policy).ok();
        let plans: Vec<BackwardPlan> = backward.iter().filter_map(plan).collect();
        let kernels: HashSet<&KernelSpec> = plans.iter().flat_map(BackwardPlan::kernels).collect();
        // What does not compile is found again by its own call.
        self.compile(&kernels.into_iter().collect::<Vec<_>>(), Wait::Awaiting).await;
        let mut results = Vec::new();
        for backward in backward {
            results.push(self.plan_backward_in(backward, policy, Wait::Awaiting).await);
        }
        results
    }

    /// Compiles the kernels of a backward plan now, so that the first run does not wait for the compiler.
    ///
    /// # Errors
    /// Internal when the driver refuses a kernel.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn prepare_backward(&self, plan: &BackwardPlan) -> Result<()> {
        let compiled = pollster::block_on(self.compile(&plan.kernels(), Wait::Blocking));
        compiled.into_iter().collect()
    }
}
