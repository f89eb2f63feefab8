//! A generated case with its data and what it should yield, to be run on one path after another.

use crate::device::Wait;
use crate::engine::Engine;
use crate::error::Result;
use crate::plan::Path;
use crate::problem::Problem;
use crate::verify::alone::differs_alone_in;
use crate::verify::cases::Case;
use crate::verify::data::CaseData;
use crate::verify::execute::{Execution, Placement};
use crate::verify::run::{On, Outcome, run_in};
use crate::verify::truth::Truth;

/// A call with its data and the reference's answer; gradients have
/// [`run_backward::Trial`](crate::verify::run_backward::Trial).
pub struct Trial {
    case: Case,
    problem: Problem,
    data: CaseData,
    truth: Truth,
    on_matrix: Option<Truth>,
}

impl Trial {
    /// Draws a case's data and computes what each of `paths` should yield of them.
    ///
    /// # Errors
    /// As [`Attention::validate`](crate::Attention::validate).
    pub fn new(case: &Case, paths: &[Path]) -> Result<Self> {
        let (problem, data) = case.generate()?;
        let truth = Truth::measure(&problem, &data.inputs())?;
        let matrix = paths.iter().any(|path| path.is_matrix());
        let on_matrix = || Truth::measure_on_matrix_units(&problem, &data.inputs());
        let on_matrix = matrix.then(on_matrix).transpose()?;
        Ok(Self { case: case.clone(), problem, data, truth, on_matrix })
    }

    /// Runs it on a path of an engine and compares its outputs; and says where the last sequence alone has other bits
    /// than in its batch. It blocks the thread.
    ///
    /// # Errors
    /// Out of memory, device lost, internal; a call that the path does not serve is an [`Outcome`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn run(
        &self,
        engine: &Engine,
        path: Path,
        placement: Placement,
    ) -> Result<(Outcome, Option<String>)> {
        pollster::block_on(self.run_in(engine, On { path, placement }, Wait::Blocking))
    }

    /// `run` without blocking the thread.
    ///
    /// # Errors
    /// As `run`.
    pub async fn run_async(
        &self,
        engine: &Engine,
        path: Path,
        placement: Placement,
    ) -> Result<(Outcome, Option<String>)> {
        self.run_in(engine, On { path, placement }, Wait::Awaiting).await
    }

    async fn run_in(
        &self,
        engine: &Engine,
        on: On,
        wait: Wait,
    ) -> Result<(Outcome, Option<String>)> {
        let truth = self.on_matrix.as_ref().filter(|_| on.path.is_matrix()).unwrap_or(&self.truth);
        let (call, data) = (&self.case.attention, &self.data);
        let mut o = Vec::new();
        let check = |x: &Execution| {
            o.clone_from(&x.outputs.o);
            truth.check(&self.problem, &x.outputs)
        };
        let outcome = run_in(engine, call, on, &data.inputs(), check, wait).await?;
        let right = matches!(&outcome, Outcome::Ran(ran) if ran.failure().is_none());
        let differs = match right {
            true => differs_alone_in(engine, call, data, on, &o, wait).await?,
            false => None,
        };
        Ok((outcome, differs))
    }
}
