//! What the planner tries, fastest first.

use crate::error::Rejection;
use crate::kernel::KernelSpec;
use crate::plan::steps::Schedule;
use crate::plan::{Capabilities, Path, Policy, fused, matrix, split, split_tile, staged, tile};
use crate::problem::Problem;

/// A way to run a problem.
pub(super) struct Candidate {
    /// The path that asks for it alone.
    pub(super) path: Path,
    /// Its steps, or why it cannot serve.
    pub(super) schedule: fn(&Problem, &Capabilities, &Policy) -> Result<Schedule, Rejection>,
    /// Why another is faster on a device, by its main kernel; `None` where none is known to be.
    pub(super) slower: fn(&KernelSpec, &Problem, &Capabilities, &Policy) -> Option<String>,
}

pub(super) const CANDIDATES: &[Candidate] = &[
    Candidate {
        path: Path::Split,
        schedule: split_tile::of_groups,
        slower: split_tile::slower_for_few,
    },
    Candidate { path: Path::Split, schedule: split::schedule, slower: split::slower },
    Candidate { path: Path::FusedMatrix, schedule: matrix::schedule, slower: never },
    Candidate { path: Path::Split, schedule: split_tile::schedule, slower: split_tile::slower },
    Candidate { path: Path::FusedTile, schedule: tile::schedule, slower: tile::slower },
    Candidate {
        path: Path::Fused,
        schedule: |problem, caps, policy| fused::schedule(problem, caps, policy, true),
        slower: fused::slower,
    },
    Candidate {
        path: Path::Fused,
        schedule: |problem, caps, policy| fused::schedule(problem, caps, policy, false),
        slower: fused::slower,
    },
    Candidate {
        path: Path::StagedMatrix,
        schedule: |problem, caps, policy| staged::schedule(problem, caps, policy, true),
        slower: never,
    },
    Candidate {
        path: Path::Staged,
        schedule: |problem, caps, policy| staged::schedule(problem, caps, policy, false),
        slower: never,
    },
];

fn never(_: &KernelSpec, _: &Problem, _: &Capabilities, _: &Policy) -> Option<String> {
    None
}
