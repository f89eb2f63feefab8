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

/// Where tensors start in their buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Placement {
    /// At multiples of 256 bytes: kernels read four elements at a time.
    Aligned,
    /// One element later: kernels read one element at a time, and bases do not vanish.
    Odd,
    /// At multiples of 256 bytes of one buffer, which holds outputs, workspace and tables as well.
    Together,
    /// In one buffer, one after another without a gap but what makes every offset odd: neighbours share words.
    TogetherOdd,
}

impl Placement {
    /// Whether tensors start between groups of four elements.
    pub fn is_odd(self) -> bool {
        matches!(self, Self::Odd | Self::TogetherOdd)
    }
}

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
