//! The fused path on matrix units: whether it can serve, and its tile.

use crate::error::{Rejection, Result};
use crate::feature::normalize::Normalizer;
use crate::kernel::{Element, KernelSpec, MatrixTile};
use crate::plan::fit::{check_resources, element_of, fitted};
use crate::plan::steps::Schedule;
use crate::plan::{BlockSize, Capabilities, Path, Policy, tuning};
use crate::problem::{Operand, Problem};
use crate::tensor::{DType, Storage};

/// One kernel with both products on matrix units, over blocks of rows.
pub(super) fn schedule(
    problem: &Problem,
    caps: &Capabilities,
    policy: &Policy,
) -> Result<Schedule, Rejection> {
    let refuse = |reason: String| Rejection { candidate: "fused_forward_matrix".into(), reason };
    if problem.attention().weights.is_some() {
        return Err(refuse("scores and weights are written by the staged paths only".into()));
    }
    check_problem(problem, caps).map_err(refuse)?;
    let normalizer = problem.attention().normalizer;
    if normalizer.needs_row() || normalizer.takes_one() {
        return Err(refuse(format!("{} is not a weighted sum in one pass", normalizer.name())));
    }
    let shape = problem.attention().shape;
    let tile = tuning::matrix_tile(caps, &shape, policy.tuning.as_deref());
    let Some(tile) = tile else {
        return Err(refuse(format!(
            "no tile for head dimensions {} and {} fits {} B of workgroup memory",
            shape.dim_qk, shape.dim_v, caps.max_workgroup_bytes
        )));
    };
    let block = BlockSize::choose(problem, caps, policy, Path::Fused)?;
    let kernel = KernelSpec::fused_matrix(problem, elements(problem, caps), tile);
    let kernel = fitted(kernel, problem, 0, caps);
    check_resources(&kernel, caps)?;
    Ok(Schedule::one(Path::FusedMatrix, kernel, None, block))
}

/// The tile of the staged path's products, where matrix units can serve them.
pub(super) fn square(problem: &Problem, caps: &Capabilities) -> Result<MatrixTile, Rejection> {
    let refuse = |reason: String| Rejection { candidate: "staged on matrix units".into(), reason };
    check_problem(problem, caps).map_err(refuse)?;
    tuning::square_tile(caps).ok_or_else(|| {
        let [low, high] = caps.subgroup_size;
        refuse(format!("subgroups of {low} to {high} do not share a tile of 64 rows"))
    })
}

fn elements(problem: &Problem, caps: &Capabilities) -> [Element; 4] {
    let operands = [Operand::Q, Operand::K, Operand::V, Operand::O];
    operands.map(|operand| element_of(problem, operand, caps))
}

/// What keeps a problem from matrix units on a device, on either path.
fn check_problem(problem: &Problem, caps: &Capabilities) -> Result<(), String> {
    let a = problem.attention();
    if caps.matrix_edge().is_none() {
        let listed: Vec<String> = caps.matrix_units.iter().map(ToString::to_string).collect();
        let listed =
            if listed.is_empty() { "none of real numbers".into() } else { listed.join(", ") };
        return Err(format!(
            "needs cubes of 8 or 16 that multiply f16 and sum in f32; this device was opened with {listed}"
        ));
    }
    if a.dtype == DType::F32 || a.kv_storage == Some(Storage::F32) {
        return Err("f32 tensors would lose 13 bits in matrices of f16".into());
    }
    if a.kv_storage.is_some_and(|storage| storage.dtype().is_none()) {
        return Err("matrix units read no keys of 8 bits or fewer".into());
    }
    // Weights of the matrix kernels reach half of what f16 holds.
    if let Some(rate) = a.dropout.map(|dropout| dropout.rate.get()).filter(|rate| *rate >= 0.499) {
        return Err(format!("weights that stay where {rate} are left out may not fit f16"));
    }
    if a.inner.is_sum() {
        return Err("additive scores are no matrix product".into());
    }
    if matches!(a.normalizer, Normalizer::Relu { .. } | Normalizer::Raw) {
        return Err(format!(
            "weights of {} have no bound and may not fit f16",
            a.normalizer.name()
        ));
    }
    Ok(())
}
