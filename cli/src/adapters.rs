//! Choosing adapters.

use heedful::{Engine, wgpu};

use crate::{Failure, Outcome};

/// How to get an adapter, on one line.
pub(crate) const INSTALL: &str = "no GPU adapter found; a software one comes with Mesa: \
    apt install mesa-vulkan-drivers, dnf install mesa-vulkan-drivers, pacman -S vulkan-swrast or \
    apk add mesa-vulkan-swrast";

/// The text that `--adapter` is looked for in: name / backend / driver.
pub(crate) fn describe(adapter: &wgpu::Adapter) -> String {
    let info = adapter.get_info();
    format!("{} / {} / {} {}", info.name, info.backend, info.driver, info.driver_info)
}

/// The adapters whose description contains `text` (any case), best first.
pub(crate) fn matching(text: Option<&str>) -> Outcome<Vec<wgpu::Adapter>> {
    let mut all = pollster::block_on(Engine::adapters());
    let Some(text) = text else { return Ok(all) };
    let known: Vec<String> = all.iter().map(describe).collect();
    all.retain(|adapter| describe(adapter).to_lowercase().contains(&text.to_lowercase()));
    if all.is_empty() {
        let wanted = if known.is_empty() {
            INSTALL.to_owned()
        } else {
            format!("part of one of: {}", known.join("; "))
        };
        return Err(heedful::Error::invalid("--adapter", format!("{text:?}"), wanted).into());
    }
    Ok(all)
}

/// An engine on an adapter, with its matrix units if they are asked for.
#[allow(unsafe_code, reason = "the user asked for the experimental feature by --matrix")]
pub(crate) fn open(adapter: &wgpu::Adapter, matrix: bool) -> heedful::Result<Engine> {
    if !matrix {
        return Engine::with_adapter_blocking(adapter);
    }
    // SAFETY: the user took responsibility.
    pollster::block_on(unsafe { Engine::with_experimental_adapter(adapter) })
}

/// An engine on the best matching adapter; `None` when the machine has none and none is required.
pub(crate) fn engine(text: Option<&str>, required: bool, matrix: bool) -> Outcome<Option<Engine>> {
    match matching(text)?.first() {
        Some(adapter) => Ok(Some(open(adapter, matrix)?)),
        None if required => Err(Failure::NoAdapter(INSTALL.into())),
        None => {
            eprintln!("heedful: {INSTALL}; using the float64 reference on the CPU");
            Ok(None)
        }
    }
}
