//! `Engine`: plans, binds, encodes and runs attention on one device.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::device::{self, PipelineCache, Wait};
use crate::engine::self_test::Functions;
use crate::engine::verdicts::Verdicts;
use crate::engine::{Bound, Tensors};
use crate::error::{Error, Result};
use crate::kernel::{Kernel, KernelSpec};
use crate::plan::{Capabilities, Plan, Policy};
use crate::problem::Attention;

/// A wgpu device with compiled kernels and scratch memory.
///
/// Everything it makes lives on the device it was given; it is `Send` and `Sync` on native
/// backends, and any number of engines can share a device.
#[derive(Debug)]
pub struct Engine {
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    pub(crate) capabilities: Capabilities,
    pub(crate) pipelines: Arc<PipelineCache>,
    pub(crate) verdicts: Verdicts,
    pub(super) functions: Functions,
    scratch: Mutex<Option<wgpu::Buffer>>,
    /// Whether the queue is the device's, once that is known.
    queue_is_own: OnceLock<bool>,
}

// An engine is shared between threads that record different encoders.
#[cfg(not(target_arch = "wasm32"))]
const _: () = {
    const fn shareable<T: Send + Sync>() {}
    shareable::<Engine>();
};

impl Engine {
    /// Every adapter of every compiled backend, in the order they are preferred: discrete, integrated, virtual, other,
    /// software; Vulkan, Metal and DX12 before GL.
    ///
    /// Empty where the machine has none. Honours wgpu's environment variables (`WGPU_BACKEND`,
    /// `WGPU_ADAPTER_NAME` …).
    pub async fn adapters() -> Vec<wgpu::Adapter> {
        device::adapters().await
    }

    /// Opens the best adapter: discrete, integrated, virtual, software; `WGPU_BACKEND` and
    /// `WGPU_ADAPTER_NAME` narrow the choice.
    ///
    /// # Errors
    /// Unsupported when the machine has no adapter (the message says how to get a software one);
    /// internal when the driver refuses the device.
    pub async fn new() -> Result<Self> {
        match device::adapters().await.first() {
            Some(adapter) => Self::with_adapter(adapter).await,
            None => Err(device::no_adapter()),
        }
    }

    /// [`new`](Self::new), blocking the thread. Blocking forms do not exist in a browser, where nothing may block.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    #[cfg(not(target_arch = "wasm32"))]
    pub fn new_blocking() -> Result<Self> {
        pollster::block_on(Self::new())
    }

    /// Opens a device of its own on the given adapter.
    ///
    /// # Errors
    /// Internal when the driver refuses the device.
    pub async fn with_adapter(adapter: &wgpu::Adapter) -> Result<Self> {
        let (device, queue) = device::request(adapter).await?;
        Ok(Self::from_wgpu(device, queue))
    }

    /// [`with_adapter`](Self::with_adapter), blocking the thread.
    ///
    /// # Errors
    /// As [`with_adapter`](Self::with_adapter).
    #[cfg(not(target_arch = "wasm32"))]
    pub fn with_adapter_blocking(adapter: &wgpu::Adapter) -> Result<Self> {
        pollster::block_on(Self::with_adapter(adapter))
    }

    /// [`with_adapter`](Self::with_adapter) with matrix units, where the adapter lists them: kernels for them are used
    /// where a [`Policy`] asks for them.
    ///
    /// # Safety
    /// The device is opened with a feature that wgpu calls experimental and has not proved to be sound:
    /// [`wgpu::ExperimentalFeatures::enabled`].
    ///
    /// # Errors
    /// As [`with_adapter`](Self::with_adapter).
    #[allow(unsafe_code, reason = "this is where the caller takes responsibility")]
    pub async unsafe fn with_experimental_adapter(adapter: &wgpu::Adapter) -> Result<Self> {
        // SAFETY: the caller has accepted it.
        let (device, queue) = unsafe { device::request_experimental(adapter) }.await?;
        let properties = adapter.cooperative_matrix_properties();
        Ok(Self::from_wgpu(device, queue).with_matrix_units(&properties))
    }

    /// Tells an engine of a borrowed device which matrix units it has: the list of
    /// [`wgpu::Adapter::cooperative_matrix_properties`], which a device does not know. It counts only where the device
    /// was opened with `EXPERIMENTAL_COOPERATIVE_MATRIX` and `SHADER_F16`.
    ///
    /// ```no_run
    /// use heedful::{Attention, DType, Engine, Policy, Shape};
    /// # fn serve(adapter: wgpu::Adapter, device: wgpu::Device, queue: wgpu::Queue) -> heedful::Result<()> {
    /// let engine = Engine::from_wgpu(device, queue)
    ///     .with_matrix_units(&adapter.cooperative_matrix_properties());
    /// let attention = Attention::new(Shape::self_attention(4, 16, 4096, 128)).dtype(DType::F16);
    /// // On matrix units where they can serve and prove themselves, by another path otherwise.
    /// let policy = Policy { matrix_units: true, ..Policy::default() };
    /// let plan = engine.plan_with(&attention, &policy)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_matrix_units(mut self, properties: &[wgpu::CooperativeMatrixProperties]) -> Self {
        self.capabilities.matrix_units = device::matrix_units(&self.device, properties);
        self
    }

    /// Plans as if the device could do something else, to try forms of kernels that it would not get.
    #[doc(hidden)]
    pub fn with_capabilities(mut self, capabilities: Capabilities) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// Uses the application's device and queue, with the limits and features it asked for.
    ///
    /// No device-wide callback is installed, and nothing is submitted but what `run` is
    /// called for and, unless [`Policy::self_test`] is off, the self-test of a kernel's first use.
    ///
    /// The queue must be the device's own. wgpu does not say whether it is; it is found out before the first
    /// submission, which is an invalid argument otherwise. Objects of another [`wgpu::Instance`] cannot be
    /// told apart at all.
    pub fn from_wgpu(device: wgpu::Device, queue: wgpu::Queue) -> Self {
        let capabilities = device::capabilities(&device);
        Self {
            device,
            queue,
            capabilities,
            pipelines: Arc::default(),
            verdicts: Verdicts::default(),
            functions: Functions::default(),
            scratch: Mutex::new(None),
            queue_is_own: OnceLock::new(),
        }
    }

    /// The device.
    pub fn device(&self) -> &wgpu::Device {
        &self.device
    }

    /// The queue.
    pub fn queue(&self) -> &wgpu::Queue {
        &self.queue
    }

    /// What the device can do, as planning sees it.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Compiles kernel files of one schedule from edited text, to plant faults in tests.
    #[doc(hidden)]
    pub fn plant(&self, kernel: Kernel, edit: fn(&str) -> String) {
        self.pipelines.plant(kernel, edit);
    }

    /// Kernel variants compiled so far.
    pub fn compiled_kernels(&self) -> usize {
        self.pipelines.len()
    }

    /// Plans a call under the default policy, blocking the thread while kernels are compiled and tried.
    ///
    /// # Errors
    /// Invalid argument, or unsupported with each candidate's reason.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn plan(&self, attention: &Attention) -> Result<Plan> {
        self.plan_with(attention, &Policy::default())
    }

    /// Plans a call. Unless the policy says otherwise, kernel variants that this engine has not used
    /// before first run a small known-answer call, which submits work and waits for it; one that is
    /// wrong on this device is quarantined, and the next candidate serves. That can take longer than a frame:
    /// [`warm`](Self::warm) does it ahead, and [`plan_async`](Self::plan_async) does not block.
    ///
    /// # Errors
    /// Invalid argument (also when a function of the caller's own does not compile, panics or differs from its
    /// closure), or unsupported with each candidate's reason.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn plan_with(&self, attention: &Attention, policy: &Policy) -> Result<Plan> {
        pollster::block_on(self.plan_in(attention, policy, Wait::Blocking))
    }

    /// [`plan_with`](Self::plan_with) without blocking the thread: kernels are compiled on others, where
    /// there are others, and trials are awaited.
    ///
    /// # Errors
    /// As `plan_with`. On wasm32 a closure that panics ends the program, as every panic does there.
    pub async fn plan_async(&self, attention: &Attention, policy: &Policy) -> Result<Plan> {
        self.plan_in(attention, policy, Wait::Awaiting).await
    }

    /// Plans calls ahead: compiles what they need on as many threads as the machine has cores, and tries it. Call it
    /// while the application loads, with one call for each set of features it will use (lengths, strides and numbers do
    /// not matter, head dimensions and types do); later plans of such calls find everything there.
    ///
    /// One result for each call, in order.
    ///
    /// ```
    /// use heedful::{Align, Attention, Engine, Policy, Shape};
    /// # let Ok(engine) = Engine::new_blocking() else { return };
    /// let prefill = Attention::new(Shape::self_attention(1, 4, 64, 32)).causal(Align::BottomRight);
    /// let decode = Attention::new(Shape { seq_q: 1, ..prefill.shape });
    /// let warm = async {
    ///     for plan in engine.warm(&[prefill, decode], &Policy::default()).await {
    ///         println!("{}", plan?);
    ///     }
    ///     Ok::<(), heedful::Error>(())
    /// };
    /// # pollster::block_on(warm).unwrap();
    /// ```
    pub async fn warm(&self, attentions: &[Attention], policy: &Policy) -> Vec<Result<Plan>> {
        let plan = |attention: &Attention| self.choose(&attention.validate().ok()?, policy).ok();
        let plans: Vec<Plan> = attentions.iter().filter_map(plan).collect();
        let kernels: HashSet<&KernelSpec> = plans.iter().flat_map(Plan::kernels).collect();
        // What does not compile is found again by its own call.
        self.compile(&kernels.into_iter().collect::<Vec<_>>(), Wait::Awaiting).await;
        let mut results = Vec::new();
        for attention in attentions {
            results.push(self.plan_in(attention, policy, Wait::Awaiting).await);
        }
        results
    }

    /// What the self-test has found so far, as text to be kept: an engine that [restores](Self::restore_verdicts) it
    /// tries nothing of that again. It holds for the adapter, driver and version of this crate that it names.
    ///
    /// Functions of the caller's own are compared with their closures anew.
    pub fn save_verdicts(&self) -> String {
        self.verdicts.saved(&self.capabilities)
    }

    /// Takes over what [`save_verdicts`](Self::save_verdicts) gave; how many verdicts that were: none where
    /// it is of another adapter, driver or version, or where the device has neither name nor driver, as in
    /// browsers that hide both.
    ///
    /// # Errors
    /// Invalid argument where it is no such text; nothing is taken over then.
    pub fn restore_verdicts(&self, saved: &str) -> Result<usize> {
        self.verdicts.restore(saved, &self.capabilities)
    }

    /// Compiles the kernels of a plan now, so that the first run does not wait for the compiler.
    ///
    /// # Errors
    /// Internal when the driver refuses a kernel.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn prepare(&self, plan: &Plan) -> Result<()> {
        let compiled = pollster::block_on(self.compile(&plan.kernels(), Wait::Blocking));
        compiled.into_iter().collect()
    }

    /// Ties a plan to tensors: bind groups, parameters and tables are made once, and the result can
    /// be encoded any number of times.
    ///
    /// # Errors
    /// Invalid argument naming the tensor, out of memory, internal.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn bind(&self, plan: &Plan, tensors: &Tensors<'_>) -> Result<Bound> {
        Bound::new(self, plan, tensors)
    }

    /// `bind` where the device's errors come later, as in a browser: it awaits them.
    ///
    /// # Errors
    /// As `bind`.
    pub async fn bind_async(&self, plan: &Plan, tensors: &Tensors<'_>) -> Result<Bound> {
        device::settled(|| Bound::new(self, plan, tensors)).await
    }

    /// Records a call into the caller's encoder: one compute pass, no submit, no wait.
    ///
    /// # Errors
    /// As [`bind`](Self::bind); on an error nothing was recorded.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn encode(
        &self,
        plan: &Plan,
        encoder: &mut wgpu::CommandEncoder,
        tensors: &Tensors<'_>,
    ) -> Result<()> {
        self.bind(plan, tensors)?.encode(encoder);
        Ok(())
    }

    /// Records and submits a call; does not wait.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    #[cfg(not(target_arch = "wasm32"))]
    pub fn run(&self, plan: &Plan, tensors: &Tensors<'_>) -> Result<wgpu::SubmissionIndex> {
        self.check_queue()?;
        let bound = self.bind(plan, tensors)?;
        device::scoped(&self.device, "submitting attention", 0, || {
            let mut encoder = self.device.create_command_encoder(&Default::default());
            bound.encode(&mut encoder);
            self.queue.submit([encoder.finish()])
        })
    }

    /// Refuses a queue of another device before anything is submitted to it.
    pub(crate) fn check_queue(&self) -> Result<()> {
        let known = || device::owns_queue(&self.device, &self.queue);
        match self.queue_is_own.get().copied().or_else(known) {
            Some(false) => {
                Err(Error::invalid("queue", "one of another device", "the device's own"))
            }
            Some(true) => {
                self.queue_is_own.get_or_init(|| true);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// A buffer to bind where an output has no elements.
    pub(crate) fn placeholder(&self) -> Result<wgpu::Buffer> {
        device::create_buffer(&self.device, "no elements", 16, wgpu::BufferUsages::STORAGE)
    }

    /// Scratch of at least `bytes`. One buffer serves all calls: work on a queue is ordered, and
    /// every call writes its scratch before it reads it.
    pub(crate) fn scratch(&self, bytes: u64) -> Result<wgpu::Buffer> {
        let mut held = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(buffer) = held.as_ref()
            && buffer.size() >= bytes
        {
            return Ok(buffer.clone());
        }
        let usage = wgpu::BufferUsages::STORAGE;
        let buffer = device::create_buffer(&self.device, "attention scratch", bytes, usage)?;
        *held = Some(buffer.clone());
        Ok(buffer)
    }
}
