//! A case for every slot file, picked from the others.

use std::collections::HashSet;

use crate::feature::Slot;
use crate::plan::{Capabilities, Path, Plan, Policy};
use crate::verify::cases::{Case, full_grid};

/// Of the cheapest cases, each that needs a slot file which no case before it needs.
pub(super) fn cases() -> Vec<Case> {
    let mut there = HashSet::new();
    let mut cases = full_grid();
    cases.sort_by_key(cost);
    cases.retain(|case| {
        let before = there.len();
        there.extend(slots(case));
        there.len() > before
    });
    cases
}

/// What a case takes where compilers are slow, wide heads first: their loops are unrolled; then its products. Cases with
/// usual data come before those that stand for what went wrong elsewhere.
fn cost(case: &Case) -> (bool, u32, u64) {
    let s = case.attention.shape;
    let products = [s.batch, s.heads_q, s.seq_q, s.seq_kv, s.dim_qk + s.dim_v];
    let wide = s.dim_qk.max(s.dim_v).next_multiple_of(64);
    (case.seen.is_some(), wide, products.into_iter().map(u64::from).product())
}

/// The slot files of the kernels that serve a case, on every path, with native f16 and without.
pub(super) fn slots(case: &Case) -> HashSet<Slot> {
    let Ok(problem) = case.attention.validate() else { return HashSet::new() };
    let mut slots = HashSet::new();
    for native in [false, true] {
        let caps = Capabilities { shader_f16: native, ..Capabilities::default() };
        for path in [Path::Split, Path::Fused, Path::Staged] {
            let policy = Policy { path, native_f16: Some(native), ..Policy::default() };
            if let Ok(plan) = Plan::new(&problem, &caps, &policy) {
                slots.extend(plan.kernels().into_iter().flat_map(|spec| spec.slots()));
            }
        }
    }
    slots
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::slots;
    use crate::feature::{self, Slot};
    use crate::verify::cases::{Grid, grid};

    /// Slot files that no case of a grid needs.
    fn missing(of: Grid) -> Vec<String> {
        let cases = grid(of).expect("distinct names");
        let there: HashSet<Slot> = cases.iter().flat_map(slots).collect();
        feature::slots().filter(|slot| !there.contains(slot)).map(Slot::path).collect()
    }

    #[test]
    fn every_slot_is_in_the_full_grid_and_in_the_few_cases_that_stand_for_it() {
        assert_eq!(missing(Grid::Full), [""; 0], "in no case of the full grid");
        assert_eq!(missing(Grid::Quick), [""; 0], "in no case of the quick grid");
        assert_eq!(missing(Grid::Slots), [""; 0], "in no case of the grid of slots");
    }
}
