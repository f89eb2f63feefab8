//! What the run of a grid consists of: calls on their paths, then gradients.

use crate::error::Result;
use crate::plan::{MAX_ROWS, Path};
use crate::problem::Attention;
use crate::tensor::DType;
use crate::verify::cases::{BackwardCase, Case, Grid, backward_grid, grid};
use crate::verify::execute::Placement;

/// A case and where its tensors start.
#[derive(Debug, Clone)]
pub struct Planned {
    /// What is run.
    pub work: Work,
    /// Where its tensors start.
    pub placement: Placement,
}

/// What is run of a case.
#[derive(Debug, Clone)]
pub enum Work {
    /// A call, on several paths.
    Call {
        /// The call and its data.
        case: Case,
        /// The paths, those that cannot serve it among them.
        paths: Vec<Path>,
    },
    /// Gradients.
    Gradients(BackwardCase),
}

impl Planned {
    /// Every case of a grid, a third of them at odd offsets, so that both access widths are seen; on the paths that
    /// [`paths`] says.
    ///
    /// # Errors
    /// As [`grid`].
    pub fn all(of: Grid, matrix: bool) -> Result<Vec<Self>> {
        let call = |case: Case| {
            let paths = paths(&case.attention, of, matrix);
            Work::Call { case, paths }
        };
        let placed = |(i, work): (usize, Work)| {
            let placement = if i % 3 == 0 { Placement::Odd } else { Placement::Aligned };
            Self { work, placement }
        };
        let calls = grid(of)?.into_iter().map(call).enumerate().map(placed);
        let gradients = backward_grid(of)?.into_iter().map(Work::Gradients).enumerate();
        Ok(calls.chain(gradients.map(placed)).collect())
    }

    /// The name of its case.
    pub fn name(&self) -> &str {
        match &self.work {
            Work::Call { case, .. } => &case.name,
            Work::Gradients(case) => &case.name,
        }
    }
}

/// The paths a call of a grid is run on: f32 is not what matrix units are for. More rows than one workgroup of split
/// takes go over the tile once more: a third of such calls do outside of the full grid. `matrix` adds the paths of
/// matrix units, which the grid for them has in any case.
pub fn paths(call: &Attention, of: Grid, matrix: bool) -> Vec<Path> {
    let s = call.shape;
    let third = (s.seq_q + s.seq_kv).is_multiple_of(3) || of == Grid::Full;
    let asked = |path: &Path| match path {
        path if path.is_matrix() => (matrix || of == Grid::Matrix) && call.dtype != DType::F32,
        Path::Split => of != Grid::Matrix && (s.seq_q <= MAX_ROWS || third),
        _ => of != Grid::Matrix,
    };
    Path::ALL.iter().copied().filter(asked).collect()
}
