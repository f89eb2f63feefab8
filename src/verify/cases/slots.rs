//! Few cases in which every slot file, kernel, treatment of rows and feature of reports occurs, picked from the others.

use std::collections::{HashMap, HashSet};

use crate::feature::Slot;
use crate::kernel::{Kernel, KernelSpec};
use crate::plan::{BackwardPlan, Capabilities, Path, Plan, Policy};
use crate::tensor::Shape;
use crate::verify::cases::{BackwardCase, Case, quick_grid};
use crate::verify::report::said_by;

/// Something that kernels are made of.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Part {
    Slot(Slot),
    Kernel(Kernel),
    /// What a report has a row for: its group and its name.
    Feature((&'static str, &'static str)),
    /// What is done to rows before they meet: whether they are rotated, normalised, multiplied with a factor,
    /// projected.
    Rows([bool; 4]),
}

/// Few of the cheapest cases in which every part occurs.
pub(super) fn cases() -> Vec<Case> {
    few(&quick_grid(), cost, parts)
}

/// The same of gradients.
pub(super) fn of_gradients(cases: &[BackwardCase]) -> Vec<BackwardCase> {
    // Tiles take compilers longest.
    let cost = |case: &BackwardCase| {
        of_shape(case.path == Path::FusedTile, &case.backward.attention.shape)
    };
    few(cases, cost, gradient_parts)
}

/// Of cases, the cheapest first, each that needs a part which none before it needs; but none whose parts the others
/// need as well.
fn few<T: Clone>(
    cases: &[T],
    cost: impl Fn(&T) -> [u64; 3],
    parts: impl Fn(&T) -> HashSet<Part>,
) -> Vec<T> {
    let mut order: Vec<_> = cases.iter().map(cost).zip(0..cases.len()).collect();
    order.sort_unstable();
    let mut needed = HashMap::new();
    let mut some = Vec::new();
    for (_, at) in order {
        let parts = parts(&cases[at]);
        if parts.iter().any(|part| !needed.contains_key(part)) {
            parts.iter().for_each(|part| *needed.entry(part.clone()).or_insert(0) += 1);
            some.push((at, parts));
        }
    }
    some.retain(|(_, parts)| {
        let spare = parts.iter().all(|part| needed[part] > 1);
        if spare {
            parts.iter().for_each(|part| *needed.entry(part.clone()).or_default() -= 1);
        }
        !spare
    });
    some.into_iter().map(|(at, _)| cases[at].clone()).collect()
}

/// What a case takes where compilers are slow, wide heads first: their loops are unrolled; then its products. Cases
/// with usual data come before those that stand for what went wrong elsewhere.
fn cost(case: &Case) -> [u64; 3] {
    of_shape(case.seen.is_some(), &case.attention.shape)
}

fn of_shape(late: bool, s: &Shape) -> [u64; 3] {
    let products = [s.batch, s.heads_q, s.seq_q, s.seq_kv, s.dim_qk + s.dim_v];
    let wide = s.dim_qk.max(s.dim_v).next_multiple_of(16);
    [late.into(), wide.into(), products.into_iter().map(u64::from).product()]
}

/// The parts of the kernels that serve a case, on every path, with native f16 and without.
pub(super) fn parts(case: &Case) -> HashSet<Part> {
    let Ok(problem) = case.attention.validate() else { return HashSet::new() };
    let mut parts: HashSet<Part> = said_by(&case.name).into_iter().map(Part::Feature).collect();
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

/// The parts of the kernels that serve gradients.
fn gradient_parts(case: &BackwardCase) -> HashSet<Part> {
    let Ok(problem) = case.backward.validate() else { return HashSet::new() };
    let policy = Policy { native_f16: Some(false), ..case.policy() };
    let plan = BackwardPlan::new(&problem, &Capabilities::default(), &policy);
    let kernels = plan.iter().flat_map(BackwardPlan::kernels);
    kernels.flat_map(of_kernel).collect()
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

    use super::{Part, gradient_parts, parts};
    use crate::feature::{self, Slot};
    use crate::verify::cases::{Grid, backward_grid, grid};

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

    #[test]
    fn gradients_of_the_grid_of_slots_have_every_part_that_those_of_the_quick_grid_have() {
        let parts = |grid| -> HashSet<Part> {
            backward_grid(grid).expect("cases").iter().flat_map(gradient_parts).collect()
        };
        let kernels = |parts: &HashSet<Part>| {
            parts.iter().filter(|part| matches!(part, Part::Kernel(_))).count()
        };
        let (all, few) = (parts(Grid::Quick), parts(Grid::Slots));
        assert!(all == few, "{} kernels of {}", kernels(&few), kernels(&all));
        assert!(kernels(&all) > 20, "{}", kernels(&all));
    }
}
