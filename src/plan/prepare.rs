//! Dispatches that write rotated, projected or normalised copies of q and k for the kernels that score.

use crate::error::{Rejection, Result};
use crate::kernel::{Element, KernelSpec, Width};
use crate::plan::Capabilities;
use crate::plan::steps::{Over, Step};
use crate::problem::{Operand, Problem};
use crate::tensor::Storage;

/// The steps a problem needs; none for plain dot products.
pub(super) fn copies(problem: &Problem, caps: &Capabilities) -> Result<Vec<Step>, Rejection> {
    let operands = [Operand::Q, Operand::K].into_iter().filter(|x| problem.prepares(*x));
    operands.map(|operand| copy(problem, caps, operand)).collect()
}

fn copy(problem: &Problem, caps: &Capabilities, operand: Operand) -> Result<Step, Rejection> {
    let a = problem.attention();
    let s = a.shape;
    let (heads, seq) = (problem.heads(operand), problem.seq(operand));
    let bytes = problem.copy_rows(operand).saturating_mul(4 * u64::from(s.dim_qk));
    let source = problem.elements(operand).unwrap_or(0);
    let stored = problem.storage(operand);
    let source = stored.bytes(source);
    // Both are bound whole.
    let limit = caps.max_binding_bytes.min(caps.max_buffer_bytes);
    let limit = limit.saturating_sub(caps.storage_alignment + 4);
    let grid = [seq.div_ceil(64), s.batch.saturating_mul(heads)];
    if bytes > limit || source > limit || grid.iter().any(|n| *n > caps.max_workgroups) {
        let reason = format!(
            "{operand} needs {} B in one binding, the device allows {limit}",
            bytes.max(source)
        );
        return Err(Rejection { candidate: "prepare".into(), reason });
    }
    let rotary = a.rotary.filter(|rotary| !rotary.ids && !rotary.key_ids);
    let angles = rotary.map_or(0, |rotary| {
        u64::from(rotary.dim / 2) * problem.rotary_rows([None, None]).len() as u64
    });
    if 8 * angles > limit {
        let reason =
            format!("rotary tables of {} B in one binding, the device allows {limit}", 8 * angles);
        return Err(Rejection { candidate: "prepare".into(), reason });
    }
    let native_f16 = stored == Storage::F16 && caps.shader_f16;
    let read = Element { storage: stored, native_f16, width: Width::Single };
    let vec4 = s.dim_qk.is_multiple_of(4);
    let width = if vec4 { Width::Vec4 } else { Width::Single };
    let kernel = KernelSpec::prepare(problem, operand, read, Element { width, ..Element::F32X4 });
    Ok(Step { kernel, over: Over::Copy { operand, bytes } })
}
