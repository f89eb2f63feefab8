//! What fits a device: tables where storage buffers are few, and plans that were made for another device.

use crate::error::{Error, Result};
use crate::kernel::{KernelSpec, MatrixTile, Resources, SMALL_TABLES};
use crate::plan::schedule::check_resources;
use crate::plan::{Capabilities, Plan};
use crate::problem::Problem;

/// The kernel, with its tables in a uniform where the device has too few storage buffers and they are small.
pub(super) fn fitted(
    mut kernel: KernelSpec,
    problem: &Problem,
    block_words: u64,
    caps: &Capabilities,
) -> KernelSpec {
    let operands = problem.operands();
    let words: u64 = operands.iter().filter(|(operand, _)| operand.is_table()).map(|x| x.1).sum();
    let few = Resources::of(&kernel).storage_buffers > caps.max_storage_buffers;
    let small = words.saturating_add(block_words) <= SMALL_TABLES.into();
    kernel.small_tables = few && small && kernel.needs_aux() && !kernel.writes_aux();
    kernel
}

/// Why a device cannot run a kernel that was planned for another one.
fn lacks(spec: &KernelSpec, caps: &Capabilities) -> Option<String> {
    if let Err(rejection) = check_resources(spec, caps) {
        return Some(rejection.reason);
    }
    if spec.needs_f16() && !caps.shader_f16 {
        return Some("needs f16 in shaders, which the device lacks".into());
    }
    let [smallest, largest] = caps.subgroup_size;
    let fetch = spec.rows.map_or(1, |rows| rows.fetch);
    if fetch > 1 && (!caps.subgroups || smallest < fetch) {
        let has = if caps.subgroups { format!("{smallest} to {largest}") } else { "none".into() };
        return Some(format!("needs subgroups of {fetch}, the device has {has}"));
    }
    spec.matrix.and_then(|tile| lacks_matrix(&tile, caps))
}

fn lacks_matrix(tile: &MatrixTile, caps: &Capabilities) -> Option<String> {
    if !caps.has_matrices(tile.edge) {
        return Some(format!("needs matrix units of {}, which the device lacks", tile.edge));
    }
    let largest = caps.subgroup_size[1];
    (tile.team < largest)
        .then(|| format!("needs subgroups of at most {}, the device's have {largest}", tile.team))
}

/// Refuses a tile that was planned for a device with other matrix units.
pub(crate) fn check_matrix(tile: &MatrixTile, caps: &Capabilities) -> Result<()> {
    let foreign = |reason| Error::invalid("plan", reason, "one for this device");
    lacks_matrix(tile, caps).map_or(Ok(()), |reason| Err(foreign(reason)))
}

impl Plan {
    /// Refuses a plan that was made for a device that can do more.
    pub(crate) fn check_kernels(&self, caps: &Capabilities) -> Result<()> {
        let lacking = self.kernels().into_iter().find_map(|spec| Some((spec, lacks(spec, caps)?)));
        lacking.map_or(Ok(()), |(spec, reason)| {
            let found = format!("{spec}, which {reason}");
            Err(Error::invalid("plan", found, "one for this device"))
        })
    }
}
