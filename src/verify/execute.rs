//! Running a call on a GPU so that nothing wrong can hide.
//!
//! Outputs and scratch are filled with a NaN pattern first, so what a kernel leaves unwritten shows.
//! Guard words stand around every tensor: inputs lie in NaN, and every byte around and between the
//! elements of an output must still hold the pattern afterwards. Each call runs twice and must give
//! the same bits.

use std::time::Instant;

use crate::device::Readback;
use crate::engine::{Engine, HostTables};
use crate::error::Result;
use crate::plan::Plan;
use crate::reference::{Inputs, Outputs};
use crate::verify::held::Held;

pub use crate::verify::held::Placement;

/// What a run gave.
#[derive(Debug, Clone)]
pub struct Execution {
    /// The outputs, gapless.
    pub outputs: Outputs,
    /// First output written outside its elements, with the byte offset; `None` when none was.
    pub stray_write: Option<String>,
    /// Whether the second run gave the same bits.
    pub repeatable: bool,
    /// Wall time of the second run with its readback, milliseconds.
    pub milliseconds: f64,
}

/// Runs a planned call twice on poisoned, guarded tensors.
///
/// # Errors
/// Invalid argument when inputs do not fit the problem, out of memory, device lost, internal.
pub fn execute(
    engine: &Engine,
    plan: &Plan,
    inputs: &Inputs<'_>,
    placement: Placement,
) -> Result<Execution> {
    let problem = plan.problem();
    inputs.validate(problem)?;
    let tables = HostTables::new(problem, &inputs.operands);
    let held = Held::new(engine, plan, inputs, &tables, placement)?;
    let tensors = held.tensors(&tables);
    let bound = engine.bind(plan, &tensors)?;
    let run = || -> Result<Vec<Vec<u8>>> {
        let mut encoder = engine.device().create_command_encoder(&Default::default());
        held.poison(&mut encoder);
        bound.encode(&mut encoder);
        let readbacks: Result<Vec<Readback>> = held
            .outputs
            .iter()
            .map(|x| Readback::record(engine.device(), &mut encoder, &x.buffer, 0, x.buffer.size()))
            .collect();
        engine.queue().submit([encoder.finish()]);
        readbacks?.into_iter().map(Readback::read_blocking).collect()
    };
    let first = run()?;
    let start = Instant::now();
    let second = run()?;
    let milliseconds = start.elapsed().as_secs_f64() * 1e3;
    let (outputs, stray_write) = held.collect(problem, &inputs.operands, &first);
    Ok(Execution { outputs, stray_write, repeatable: first == second, milliseconds })
}
