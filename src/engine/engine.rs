//! `Engine`: plans, binds, encodes and runs attention on one device.

use std::sync::{Mutex, OnceLock, PoisonError};

use crate::device::{self, PipelineCache};
use crate::engine::self_test::Verdicts;
use crate::engine::{Bound, Tensors};
use crate::error::{Error, Result};
use crate::kernel::{Kernel, KernelSpec};
use crate::plan::{Capabilities, Plan, Policy, SelfTest};
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
    pub(crate) pipelines: PipelineCache,
    pub(crate) verdicts: Verdicts,
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

    /// [`new`](Self::new), blocking the thread.
    ///
    /// # Errors
    /// As [`new`](Self::new).
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
    pub fn with_adapter_blocking(adapter: &wgpu::Adapter) -> Result<Self> {
        pollster::block_on(Self::with_adapter(adapter))
    }

    /// [`with_adapter`](Self::with_adapter) with matrix units, where the adapter lists them: kernels for them are used where
    /// a [`Policy`] asks for them.
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
    /// [`wgpu::Adapter::cooperative_matrix_properties`], which a device does not know. It counts only where the device was
    /// opened with `EXPERIMENTAL_COOPERATIVE_MATRIX` and `SHADER_F16`.
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
    /// No device-wide callback is installed, and nothing is submitted but what [`run`](Self::run) is
    /// called for and, unless [`Policy::self_test`] is off, the self-test of a kernel's first use.
    ///
    /// The queue must be the device's own. wgpu does not say whether it is; it is found out before the first submission,
    /// which is an invalid argument otherwise. Objects of another [`wgpu::Instance`] cannot be told apart at all.
    pub fn from_wgpu(device: wgpu::Device, queue: wgpu::Queue) -> Self {
        let capabilities = device::capabilities(&device);
        Self {
            device,
            queue,
            capabilities,
            pipelines: PipelineCache::default(),
            verdicts: Verdicts::default(),
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

    /// Plans a call under the default policy.
    ///
    /// # Errors
    /// Invalid argument, or unsupported with each candidate's reason.
    pub fn plan(&self, attention: &Attention) -> Result<Plan> {
        self.plan_with(attention, &Policy::default())
    }

    /// Plans a call. Unless the policy says otherwise, kernel variants that this engine has not used
    /// before first run a small known-answer call, which submits work and waits for it; one that is
    /// wrong on this device is quarantined, and the next candidate serves.
    ///
    /// # Errors
    /// Invalid argument (also when a function of the caller's own does not compile), or unsupported
    /// with each candidate's reason.
    pub fn plan_with(&self, attention: &Attention, policy: &Policy) -> Result<Plan> {
        let problem = attention.validate()?;
        if policy.self_test == SelfTest::OnFirstUse {
            self.check_queue()?;
        }
        loop {
            let refused = |spec: &KernelSpec| self.verdicts.refusal(spec);
            let plan = Plan::choose(&problem, &self.capabilities, policy, &refused)?;
            // A browser cannot wait, so nothing is tried there.
            let untried = policy.self_test == SelfTest::OnFirstUse;
            if !untried || cfg!(target_arch = "wasm32") || self.proves(&plan)? {
                return Ok(plan);
            }
        }
    }

    /// Compiles the kernels of a plan now, so that the first run does not wait for the compiler.
    ///
    /// # Errors
    /// Internal when the driver refuses a kernel.
    pub fn prepare(&self, plan: &Plan) -> Result<()> {
        for spec in plan.kernels() {
            self.pipelines.get(&self.device, spec)?;
        }
        Ok(())
    }

    /// Ties a plan to tensors: bind groups, parameters and tables are made once, and the result can
    /// be encoded any number of times.
    ///
    /// # Errors
    /// Invalid argument naming the tensor, out of memory, internal.
    pub fn bind(&self, plan: &Plan, tensors: &Tensors<'_>) -> Result<Bound> {
        Bound::new(self, plan, tensors)
    }

    /// Records a call into the caller's encoder: one compute pass, no submit, no wait.
    ///
    /// # Errors
    /// As [`bind`](Self::bind); on an error nothing was recorded.
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
