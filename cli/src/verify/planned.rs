//! What of a grid is run: what the arguments ask for.

use heedful::verify::cases::{BackwardCase, Grid};
use heedful::verify::planned::{self, Planned, Work};
use heedful::verify::run::policy;
use heedful::verify::run_backward::Trial;
use heedful::{Attention, BackwardPlan, Engine, Error, Path};

use crate::args::{GridName, VerifyArgs};

/// The grid of a name.
pub(super) fn grid(name: GridName) -> (Grid, &'static str) {
    match name {
        GridName::Slots => (Grid::Slots, "slots"),
        GridName::Quick => (Grid::Quick, "quick"),
        GridName::Full => (Grid::Full, "full"),
        GridName::Matrix => (Grid::Matrix, "matrix"),
    }
}

/// Every case of a grid, on the paths that are asked for.
pub(super) fn all(of: Grid, args: &VerifyArgs) -> Result<Vec<Planned>, Error> {
    let asked = |mut planned: Planned| {
        planned.work = match planned.work {
            Work::Call { case, mut paths } => {
                paths.retain(|path| args.asks_for(*path));
                Work::Call { case, paths }
            }
            Work::Gradients(case) => Work::Gradients(on_asked_path(case, args)?),
        };
        Some(planned)
    };
    Ok(Planned::all(of, args.uses_matrix())?.into_iter().filter_map(asked).collect())
}

/// Compiles what a case needs. What does not compile is found again, and reported, when it runs.
pub(super) fn compile(planned: &Planned, engine: &Engine) {
    match &planned.work {
        Work::Call { case, paths } => {
            for path in paths {
                let policy = policy(*path, planned.placement);
                if let Ok(plan) = engine.plan_with(&case.attention, &policy) {
                    let _ = engine.prepare(&plan);
                }
            }
        }
        Work::Gradients(case) => {
            let policy = Trial::policy(case, planned.placement);
            if let Ok(plan) = engine.plan_backward_with(&case.backward, &policy) {
                let _ = engine.prepare_backward(&plan);
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

/// The paths a recorded call is run on.
pub(super) fn paths(call: &Attention, args: &VerifyArgs) -> Vec<Path> {
    let (of, _) = grid(args.grid.unwrap_or(GridName::Quick));
    let mut paths = planned::paths(call, of, args.uses_matrix());
    paths.retain(|path| args.asks_for(*path));
    paths
}
