//! Compiling the kernels of a plan, as many at a time as there are cores.

use crate::device::Wait;
use crate::engine::Engine;
use crate::error::Result;
use crate::kernel::KernelSpec;

impl Engine {
    /// Compiles what is missing, on threads of their own where there is more than one or the caller's must not
    /// stand still; one result for each kernel.
    pub(crate) async fn compile(&self, kernels: &[&KernelSpec], wait: Wait) -> Vec<Result<()>> {
        #[cfg(not(target_arch = "wasm32"))]
        self.compile_ahead(kernels, wait).await;
        #[cfg(target_arch = "wasm32")]
        let _ = wait;
        let mut results = Vec::new();
        for spec in kernels {
            results.push(self.pipelines.compiled(&self.device, spec).await);
        }
        results
    }

    /// Compiles on threads; what does not compile is found again by whoever needs it.
    #[cfg(not(target_arch = "wasm32"))]
    async fn compile_ahead(&self, kernels: &[&KernelSpec], wait: Wait) {
        use std::collections::VecDeque;
        use std::sync::{Arc, Mutex, PoisonError};

        use futures_intrusive::channel::shared::oneshot_channel;

        let missing: VecDeque<KernelSpec> =
            kernels.iter().filter(|x| !self.pipelines.holds(x)).map(|x| (*x).clone()).collect();
        // OpenGL's context belongs to one thread at a time.
        let one = self.device.adapter_info().backend == wgpu::Backend::Gl;
        if one || missing.is_empty() || missing.len() == 1 && wait == Wait::Blocking {
            return;
        }
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let count = threads.min(missing.len());
        let queue = Arc::new(Mutex::new(missing));
        let mut ends = Vec::new();
        for _ in 0..count {
            let (queue, pipelines) = (Arc::clone(&queue), Arc::clone(&self.pipelines));
            let device = self.device.clone();
            let (sender, end) = oneshot_channel();
            let work = move || {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    let Some(spec) = next else { break };
                    let _ = pipelines.get(&device, &spec);
                }
                let _ = sender.send(());
            };
            // Where no thread is to be had the caller's own compiles.
            if std::thread::Builder::new().name("compiling attention".into()).spawn(work).is_ok() {
                ends.push(end);
            }
        }
        for end in ends {
            end.receive().await;
        }
    }
}
