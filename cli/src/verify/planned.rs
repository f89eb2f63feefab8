//! What a grid's run consists of: calls on their paths, then gradients.

use heedful::plan::MAX_ROWS;
use heedful::verify::cases::{BackwardCase, Case};
use heedful::verify::execute::Placement;
use heedful::verify::run::policy;
use heedful::verify::run_backward::Trial;
use heedful::{Attention, BackwardPlan, DType, Engine, Path};

use crate::args::{GridName, VerifyArgs};

/// A case and where its tensors start.
pub(super) struct Planned {
    pub(super) work: Work,
    pub(super) placement: Placement,
}

/// What is run of it.
pub(super) enum Work {
    Call { case: Case, paths: Vec<Path> },
    Gradients(BackwardCase),
}

impl Planned {
    /// Every case, a third of them at odd offsets, so that both access widths are seen.
    pub(super) fn all(
        calls: Vec<Case>,
        gradients: Vec<BackwardCase>,
        args: &VerifyArgs,
    ) -> Vec<Self> {
        let call = |case: Case| {
            let paths = paths(&case.attention, args);
            Work::Call { case, paths }
        };
        let placed = |(i, work): (usize, Work)| {
            let placement = if i % 3 == 0 { Placement::Odd } else { Placement::Aligned };
            Self { work, placement }
        };
        let gradients = gradients.into_iter().filter_map(|case| on_asked_path(case, args));
        let gradients = gradients.map(Work::Gradients);
        let calls = calls.into_iter().map(call).enumerate().map(placed);
        calls.chain(gradients.enumerate().map(placed)).collect()
    }

    pub(super) fn name(&self) -> &str {
        match &self.work {
            Work::Call { case, .. } => &case.name,
            Work::Gradients(case) => &case.name,
        }
    }

    /// Compiles what it needs. What does not compile is found again, and reported, when it runs.
    pub(super) fn compile(&self, engine: &Engine) {
        match &self.work {
            Work::Call { case, paths } => {
                for path in paths {
                    let policy = policy(*path, self.placement);
                    if let Ok(plan) = engine.plan_with(&case.attention, &policy) {
                        let _ = engine.prepare(&plan);
                    }
                }
            }
            Work::Gradients(case) => {
                let policy = Trial::policy(case, self.placement);
                if let Ok(plan) = engine.plan_backward_with(&case.backward, &policy) {
                    let _ = engine.prepare_backward(&plan);
                }
            }
        }
    }
}

/// Gradients on a path that is asked for; those of a case that leaves its path open on the first of these.
fn on_asked_path(case: BackwardCase, args: &VerifyArgs) -> Option<BackwardCase> {
    match case.path {
        Path::Auto if !args.path.is_empty() => {
            let mut paths = BackwardPlan::PATHS.into_iter();
            let path = paths.find(|path| args.asks_for(*path))?;
            Some(BackwardCase { path, ..case })
        }
        Path::Auto => Some(case),
        path => args.asks_for(path).then_some(case),
    }
}

/// The paths a call is run on: f32 is not what matrix units are for. More rows than one workgroup of split takes go
/// over the tile once more: a third of such calls do outside of the full grid.
pub(super) fn paths(call: &Attention, args: &VerifyArgs) -> Vec<Path> {
    let mut paths = Vec::new();
    if args.grid != Some(GridName::Matrix) {
        let s = call.shape;
        let third = (s.seq_q + s.seq_kv).is_multiple_of(3) || args.grid == Some(GridName::Full);
        paths.extend((s.seq_q <= MAX_ROWS || third).then_some(Path::Split));
        paths.extend([Path::Fused, Path::FusedTile, Path::Staged]);
    }
    if args.uses_matrix() && call.dtype != DType::F32 {
        paths.extend([Path::FusedMatrix, Path::StagedMatrix]);
    }
    paths.retain(|path| args.asks_for(*path));
    paths
}
