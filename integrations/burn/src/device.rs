//! Burn's devices that attention runs on: the engine beside each.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::tensor::wgpu::{WgpuOptions, WgpuSetup};
use burn::tensor::{Device, Tensor};
use burn_cubecl::CubeDevice;
use heedful::{Attention, Backward, BackwardPlan, Engine, Plan};

use crate::error::{Error, Result};
use crate::memory;

/// The plans that an engine keeps, of each kind; beyond that it forgets them all. Kernels stay compiled and proved.
const PLANS: usize = 512;

/// Initialises Burn's wgpu runtime and prepares it for attention.
///
/// ```no_run
/// # fn main() -> heedful_burn::Result<()> {
/// let device = heedful_burn::open(burn::tensor::Device::wgpu_options())?;
/// let device = device.autodiff(); // gradients, as for any Burn device
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// Burn's: no adapter, or a runtime that was initialised before. A device made elsewhere is [shared](share) instead.
pub fn open(options: WgpuOptions) -> Result<Device> {
    let opened = options.init_with_setup();
    let (device, setup) = opened.map_err(|error| Error::Burn(error.to_string()))?;
    share(&device, &setup)?;
    Ok(device)
}

/// Prepares a Burn device for attention whose wgpu handles the caller has: those that were given to
/// [`WgpuOptions::setup`], or came from `init_with_setup`. A second time it changes nothing. That the setup is this
/// device's is for the caller to see to: neither Burn's device nor a buffer says what it belongs to.
///
/// # Errors
/// A device that is not of Burn's wgpu runtime.
pub fn share(device: &Device, setup: &WgpuSetup) -> Result<()> {
    let device = cube_device(device)?;
    let mut devices = devices();
    if !devices.iter().any(|(known, _)| *known == device) {
        let engine = Arc::new(Engine::from_wgpu(setup.device.clone(), setup.queue.clone()));
        let (forward, backward) = (Plans::default(), Plans::default());
        devices.push((device, Arc::new(Shared { engine, forward, backward })));
    }
    Ok(())
}

/// The engine beside a Burn device, for calls that this crate has no words for: caches, layers, timings.
///
/// # Errors
/// A device that was not [opened](open) or [shared](share) here.
pub fn engine(device: &Device) -> Result<Arc<Engine>> {
    Ok(Shared::of(&cube_device(device)?)?.engine.clone())
}

fn cube_device(device: &Device) -> Result<CubeDevice> {
    let probe = Tensor::<1>::empty([1], &device.clone().inner());
    Ok(memory::concrete("device", probe.into_dispatch())?.device)
}

static DEVICES: Mutex<Vec<(CubeDevice, Arc<Shared>)>> = Mutex::new(Vec::new());

fn devices() -> MutexGuard<'static, Vec<(CubeDevice, Arc<Shared>)>> {
    DEVICES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An engine and the plans that it made.
pub(crate) struct Shared {
    pub(crate) engine: Arc<Engine>,
    forward: Plans<Attention, Plan>,
    backward: Plans<Backward, BackwardPlan>,
}

impl Shared {
    pub(crate) fn of(device: &CubeDevice) -> Result<Arc<Self>> {
        let devices = devices();
        let found = devices.iter().find(|(known, _)| known == device);
        found.map(|(_, shared)| shared.clone()).ok_or_else(|| {
            let wanted = "a device of heedful_burn::open, or one given to heedful_burn::share";
            Error::invalid("device", format!("{device:?}"), wanted)
        })
    }

    pub(crate) fn forward(&self, attention: &Attention) -> Result<Arc<Plan>> {
        self.forward.get(attention, || self.engine.plan(attention))
    }

    pub(crate) fn backward(&self, backward: &Backward) -> Result<Arc<BackwardPlan>> {
        self.backward.get(backward, || self.engine.plan_backward(backward))
    }
}

/// Plans by what was asked.
struct Plans<K, P>(Mutex<HashMap<K, Arc<P>>>);

impl<K, P> Default for Plans<K, P> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + Eq + Hash, P> Plans<K, P> {
    fn get(&self, asked: &K, make: impl FnOnce() -> heedful::Result<P>) -> Result<Arc<P>> {
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = known().get(asked) {
            return Ok(plan.clone());
        }
        // Not under the lock: the first plan of a kind compiles and proves its kernels.
        let plan = Arc::new(make()?);
        let mut known = known();
        if known.len() >= PLANS {
            known.clear();
        }
        Ok(known.entry(asked.clone()).or_insert(plan).clone())
    }
}
