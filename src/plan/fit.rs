//! What fits a problem and a device: elements, iterations, resources, tables where storage buffers are few, and
//! plans that were made for another device.

use crate::error::{Error, Rejection, Result};
use crate::kernel::{Element, KernelSpec, MatrixTile, Resources, SMALL_TABLES, Width};
use crate::plan::{BackwardPlan, Capabilities, Plan};
use crate::problem::{BackwardProblem, Operand, Problem};
use crate::tensor::{DType, Storage, Strides};

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
    kernel.build.small_tables = few && small && kernel.needs_aux() && !kernel.writes_aux();
    kernel
}

/// How kernels that make scores read or write an operand: four elements at a time when its sizes and strides allow it
/// (a view's byte offset is seen only when tensors are bound).
pub(super) fn element_of(problem: &Problem, operand: Operand, caps: &Capabilities) -> Element {
    // q may have other channels where it is projected first.
    let projected = operand == Operand::Q;
    let dim = if projected { problem.attention().shape.dim_qk } else { problem.dim(operand) };
    let (storage, strides) = (problem.read_storage(operand), problem.read_strides(operand));
    element(problem, operand, (storage, strides, dim), caps)
}

/// The same of the caller's tensor, before it is prepared.
pub(super) fn stored_element_of(
    problem: &Problem,
    operand: Operand,
    caps: &Capabilities,
) -> Element {
    let (storage, strides) = (problem.storage(operand), problem.strides(operand));
    element(problem, operand, (storage, strides, problem.dim(operand)), caps)
}

fn element(
    problem: &Problem,
    operand: Operand,
    (storage, strides, dim): (Storage, Strides, u32),
    caps: &Capabilities,
) -> Element {
    if storage.dtype().is_none() {
        return Element { storage, native_f16: false, width: Width::Vec4 };
    }
    let (batch, heads, seq) =
        (problem.attention().shape.batch, problem.heads(operand), problem.seq(operand));
    let steps = [(strides.batch, batch), (strides.head, heads), (strides.row, seq)];
    let aligned = steps.iter().all(|&(stride, n)| n <= 1 || stride % 4 == 0);
    let width = if aligned && dim % 4 == 0 { Width::Vec4 } else { Width::Single };
    Element { storage, native_f16: storage == Storage::F16 && caps.shader_f16, width }
}

/// How kernels write the gradient of an operand that they read, or would read, as `element`.
pub(super) fn gradient_element(
    backward: &BackwardProblem,
    operand: Operand,
    element: Element,
) -> Element {
    match backward.gradient_dtype(operand) {
        DType::F32 => Element { storage: Storage::F32, native_f16: false, ..element },
        _ => element,
    }
}

/// Keys that some of neighbouring rows may see.
pub(super) fn keys_of_rows(problem: &Problem, rows: u32) -> u32 {
    let a = problem.attention();
    let reaches = a.masks.iter().filter_map(|mask| mask.reach());
    reaches.fold(a.shape.seq_kv, |keys, reach| keys.min(reach.saturating_add(rows)))
}

pub(super) fn too_many(iterations: u64, caps: &Capabilities) -> String {
    let most = caps.max_loop_iterations;
    format!("{iterations} iterations over keys, this driver ends loops after {most}")
}

pub(super) fn check_resources(spec: &KernelSpec, caps: &Capabilities) -> Result<(), Rejection> {
    let needs = Resources::of(spec);
    let checks = [
        ("invocations", needs.invocations, caps.max_invocations),
        ("B of workgroup memory", needs.workgroup_bytes, caps.max_workgroup_bytes),
        ("storage buffers", needs.storage_buffers, caps.max_storage_buffers),
    ];
    for (what, needed, available) in checks {
        if needed > available {
            let reason = format!("needs {needed} {what}, the device has {available}");
            return Err(Rejection { candidate: spec.to_string(), reason });
        }
    }
    Ok(())
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
    let fetch = spec.row_tile().map_or(1, |rows| rows.fetch);
    if fetch > 1 && (!caps.subgroups || smallest < fetch) {
        let has = if caps.subgroups { format!("{smallest} to {largest}") } else { "none".into() };
        return Some(format!("needs subgroups of {fetch}, the device has {has}"));
    }
    spec.matrix_tile().and_then(|tile| lacks_matrix(&tile, caps))
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
        check_kernels(&self.kernels(), caps)
    }
}

impl BackwardPlan {
    /// Refuses a plan that was made for a device that can do more.
    pub(crate) fn check_kernels(&self, caps: &Capabilities) -> Result<()> {
        check_kernels(&self.kernels(), caps)
    }
}

fn check_kernels(kernels: &[&KernelSpec], caps: &Capabilities) -> Result<()> {
    let lacking = kernels.iter().find_map(|spec| Some((spec, lacks(spec, caps)?)));
    lacking.map_or(Ok(()), |(spec, reason)| {
        let found = format!("{spec}, which {reason}");
        Err(Error::invalid("plan", found, "one for this device"))
    })
}
