//! A case for every slot file, kernel and treatment of rows, picked from the others.

use std::collections::HashSet;

use crate::feature::Slot;
use crate::kernel::{Kernel, KernelSpec};
use crate::plan::{Capabilities, Path, Plan, Policy};
use crate::verify::cases::{Case, full_grid};

/// Something that kernels are made of.
#[derive(PartialEq, Eq, Hash)]
pub(super) enum Part {
    Slot(Slot),
    Kernel(Kernel),
    /// What is done to rows before they meet: whether they are rotated, normalised, multiplied with a factor,
    /// projected.
    Rows([bool; 4]),
}

/// Of the cheapest cases, each that needs a part which no case before it needs.
pub(super) fn cases() -> Vec<Case> {
    let mut there = HashSet::new();
    let mut cases = full_grid();
    cases.sort_by_key(cost);
    cases.retain(|case| {
        let before = there.len();
        there.extend(parts(case));
        there.len() > before
    });
    cases
}

/// What a case takes where compilers are slow, wide heads first: their loops are unrolled; then its products. Cases
/// with usual data come before those that stand for what went wrong elsewhere.
fn cost(case: &Case) -> (bool, u32, u64) {
    let s = case.attention.shape;
    let products = [s.batch, s.heads_q, s.seq_q, s.seq_kv, s.dim_qk + s.dim_v];
    let wide = s.dim_qk.max(s.dim_v).next_multiple_of(16);
    (case.seen.is_some(), wide, products.into_iter().map(u64::from).product())
}

/// The parts of the kernels that serve a case, on every path, with native f16 and without.
pub(super) fn parts(case: &Case) -> HashSet<Part> {
    let Ok(problem) = case.attention.validate() else { return HashSet::new() };
    let mut parts = HashSet::new();
    for native in [false, true] {
        let caps = Capabilities { shader_f16: native, ..Capabilities::default() };
        for path in [Path::Split, Path::Fused, Path::Staged] {
            let policy = Policy { path, native_f16: Some(native), ..Policy::default() };
            if let Ok(plan) = Plan::new(&problem, &caps, &policy) {
                parts.extend(plan.kernels().into_iter().flat_map(of_kernel));
            }
        }
    }
    parts
}

fn of_kernel(spec: &KernelSpec) -> Vec<Part> {
    let rows = spec
        .preparation
        .map(|x| Part::Rows([x.rotary.is_some(), x.normalized, x.head_scale, x.projected]));
    let slots = spec.slots().into_iter().map(Part::Slot);
    slots.chain([Part::Kernel(spec.kernel)]).chain(rows).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{Part, parts};
    use crate::feature::{self, Slot};
    use crate::verify::cases::{Grid, grid};

    /// Slot files that no case of a grid needs.
    fn missing(of: Grid) -> Vec<String> {
        let cases = grid(of).expect("distinct names");
        let there: HashSet<Part> = cases.iter().flat_map(parts).collect();
        let missing = feature::slots().filter(|slot| !there.contains(&Part::Slot((*slot).clone())));
        missing.map(Slot::path).collect()
    }

    #[test]
    fn every_slot_is_in_the_full_grid_and_in_the_few_cases_that_stand_for_it() {
        assert_eq!(missing(Grid::Full), [""; 0], "in no case of the full grid");
        assert_eq!(missing(Grid::Quick), [""; 0], "in no case of the quick grid");
        assert_eq!(missing(Grid::Slots), [""; 0], "in no case of the grid of slots");
    }
}
